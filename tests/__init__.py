"""Tests by what they need: unit and sim nothing, contract and integration this machine, e2e all."""
