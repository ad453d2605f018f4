"""Images over HTTP: upload in chunks, download in chunks, list, remove.

Owns: these routes. Must never: ask the hub for anything of an image by the server's own rights
before the hub has said that the bearer may have it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.requests import ClientDisconnect

from guactors import messages as m
from guactors.errors import ImageRefused, UsageError
from guactors.images.manifest import CHUNK, MOST_CHUNKS, image_id
from guactors.web import forms, gate
from guactors.web.answers import Refused, refusal_of
from guactors.web.bearers import Bearer
from guactors.web.guard import RAW
from guactors.web.hub_client import Hub

UPLOAD = "upload_images"

ImagePath = Annotated[str, Path(pattern="^sha3-256:[0-9a-f]{64}$")]
BlobPath = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
ChunkPath = Annotated[int, Path(ge=0, lt=MOST_CHUNKS)]

_RAW_BODY = {"content": {RAW: {"schema": {"type": "string", "format": "binary"}}}}


def upload_routes(hub: Hub) -> APIRouter:
    """Offer, chunks, seal."""
    routes = APIRouter(prefix="/images", tags=["images"])

    @routes.post("", status_code=202, responses={200: {"description": "it is there already"}})
    async def offer(form: forms.OfferForm, request: Request, response: Response) -> forms.Offered:
        """Begin an upload, or go on with it: what is missing?"""
        bearer = gate.bearer_in(request.scope)
        manifest = forms.unpack(form.manifest, "manifest")
        signatures = forms.unpack(form.signatures, "signatures")
        question = m.OfferImage(0, manifest, signatures, bearer.token)
        try:
            found = await hub.ask_for(bearer.key, question, m.Message)
        except UsageError as fault:
            raise Refused(refusal_of(fault, 409)) from None
        image = image_id(manifest)
        if not isinstance(found, m.WantChunks):
            response.status_code = 200
            return forms.Offered(image=image, missing={})
        missing = {one.blob: one.chunks for one in found.missing}
        return forms.Offered(image=image, missing=missing)

    @routes.put(
        "/{image}/blobs/{blob}/chunks/{index}",
        status_code=204,
        openapi_extra={"requestBody": {**_RAW_BODY, "required": True}},
    )
    async def put(image: ImagePath, blob: BlobPath, index: ChunkPath, request: Request) -> Response:
        """A chunk of an offered image."""
        bearer = gate.bearer_in(request.scope)
        await _may_upload(hub, bearer, image)
        try:
            data = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)  # for nobody
        question = m.PutChunk(0, image, blob, index, data)
        await _go_on(hub, bearer, question)
        return Response(status_code=204)

    @routes.post("/{image}/seal", status_code=201)
    async def seal(image: ImagePath, request: Request, response: Response) -> forms.Sealed:
        """All chunks were sent: keep the image."""
        bearer = gate.bearer_in(request.scope)
        await _may_upload(hub, bearer, image)
        try:
            await _go_on(hub, bearer, m.SealImage(0, image))
        except ImageRefused as fault:
            raise Refused(refusal_of(fault, 409)) from None
        response.headers["Location"] = f"/images/{image}"
        return forms.Sealed(image=image)

    return routes


def image_routes(hub: Hub) -> APIRouter:
    """What is there."""
    routes = APIRouter(prefix="/images", tags=["images"])

    @routes.get("")
    async def listing(request: Request) -> list[forms.ImageListed]:
        """The images that the bearer may use."""
        bearer = gate.bearer_in(request.scope)
        found = await hub.ask_for(bearer.key, m.AskImages(0, bearer.token), m.ImageList)
        return [
            forms.ImageListed(
                image=row.image,
                name=row.name,
                size=row.size,
                created=row.created,
                signers=row.signers,
                last_used=forms.moment(row.last_used) if row.last_used else None,
            )
            for row in found.images
        ]

    @routes.get("/{image}")
    async def show(image: ImagePath, request: Request) -> forms.Image:
        """Its manifest and signatures."""
        found = await _image(hub, gate.bearer_in(request.scope), image)
        return forms.Image(
            image=image,
            manifest=forms.pack(found.manifest),
            signatures=forms.pack(found.signatures),
        )

    @routes.delete("/{image}", status_code=204)
    async def remove(image: ImagePath, request: Request) -> None:
        """Remove it from the hub, or from the bearer's uploads if others uploaded it, too."""
        bearer = gate.bearer_in(request.scope)
        try:
            await hub.ask_for(bearer.key, m.RemoveImage(0, image, bearer.token), m.Done)
        except ImageRefused as fault:
            # It is not there for him, or somebody fetches it.
            await _image(hub, bearer, image)
            raise Refused(refusal_of(fault, 409)) from None

    return routes


def download_routes(hub: Hub) -> APIRouter:
    """The content of what is there."""
    routes = APIRouter(prefix="/images", tags=["images"])

    @routes.get(
        "/{image}/blobs/{blob}/chunks/{index}",
        response_class=Response,
        responses={200: _RAW_BODY},
    )
    async def get(image: ImagePath, blob: BlobPath, index: ChunkPath, request: Request) -> Response:
        """A chunk, to be checked against the manifest by whoever fetches it."""
        bearer = gate.bearer_in(request.scope)
        await _image(hub, bearer, image)
        gate.hold(request.scope, CHUNK)
        try:
            question = m.AskChunk(0, image, blob, index)
            found = await hub.ask_for(bearer.key, question, m.ChunkIs)
        except (ImageRefused, UsageError) as fault:
            raise Refused(refusal_of(fault, 404)) from None
        return Response(found.data, media_type=RAW)

    return routes


async def _may_upload(hub: Hub, bearer: Bearer, image: str) -> None:
    """Before the body is read: a chunk and a seal carry no token."""
    await hub.ask(m.UseToken(0, bearer.token, UPLOAD, image), m.Allowed)


async def _go_on(hub: Hub, bearer: Bearer, question: m.Message) -> None:
    """A step of an upload, which must be open on this key's line."""
    try:
        await hub.ask_for(bearer.key, question, m.Done)
    except UsageError as fault:
        raise Refused(refusal_of(fault, 409)) from None


async def _image(hub: Hub, bearer: Bearer, image: str) -> m.ImageIs:
    """An image that the bearer may have."""
    try:
        return await hub.ask_for(bearer.key, m.AskImage(0, image, bearer.token), m.ImageIs)
    except ImageRefused as fault:
        raise Refused(refusal_of(fault, 404)) from None
