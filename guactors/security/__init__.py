"""Who somebody is and what they may: keys, signatures, grants, policies, the audit chain.

Nothing is imported here: a grid of one machine needs no keys and must not pay for them.
"""
