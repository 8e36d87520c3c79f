"""Label Studio's ML backend contract: prelabelled tasks, and masks with names for clicks and boxes."""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from service.core.errors import DeadlineExceeded, ServiceError, TemporaryError
from service.transports.http_api import Ready, Tenant
from service.transports.label_studio_access import Access, Projects
from service.transports.label_studio_config import LabelConfig, parse_config
from service.transports.label_studio_schemas import PredictIn, ProjectIn, SetupIn, Task
from service.transports.label_studio_tasks import Annotation, annotate_everything, annotate_prompted, batch_names
from service.transports.problems import MalformedRequest
from service.transports.requests import check_objects
from service.transports.services import Services

_BATCH_SECONDS = 90.0  # Label Studio waits for 100
_SETUP_SECONDS = 1.0  # Label Studio waits for 3
_log = logging.getLogger(__name__)
_Body = TypeVar("_Body", bound=BaseModel)


def projects(request: Request) -> Projects:
    """The projects set up so far, put into the app's state by the composition root."""
    known: Projects = request.app.state.label_studio
    return known


Known = Annotated[Projects, Depends(projects)]
router = APIRouter(prefix="/integrations/label-studio", include_in_schema=False)


@router.get("")
@router.get("/")
@router.get("/health")
async def health(ready: Ready) -> dict[str, str]:
    """The model is loaded: the app answers nothing before."""
    return {"status": "UP", "model_class": ready.backend.spec.variant}


@router.post("/setup")
async def setup(request: Request, ready: Ready, tenant: Tenant, known: Known) -> dict[str, str]:
    """Remember where the project's images are, and begin to embed its labels."""
    body = await _parse(request, SetupIn)
    known.set_up(_own(tenant, body.project), Access(body.hostname or "", body.access_token or ""))
    with suppress(ServiceError):  # a config without labels is no failure yet; embedding goes on without us
        names = await batch_names(ready, parse_config(body.schema_ or ""), tenant=tenant)
        await ready.vocabularies.classifier_of(names, timeout=_SETUP_SECONDS)
    return {"model_version": _version(ready)}


@router.post("/predict")
async def predict(request: Request, ready: Ready, tenant: Tenant, known: Known) -> Response:
    """One prediction for each task: the prompted object, or without prompts all objects that the labels name."""
    body = await _parse(request, PredictIn)
    batch = _Batch(ready, tenant, known, body, _config(body), deadline=time.monotonic() + _BATCH_SECONDS)
    annotations = [await _annotate(task, batch) for task in body.tasks]
    version = _version(ready)
    results = [{"model_version": version, "score": a.score, "result": a.regions} for a in annotations]
    content = await asyncio.to_thread(to_json, {"results": results})  # brush masks are long lists of numbers
    return Response(content, media_type="application/json")


@router.post("/webhook", status_code=201)
@router.post("/train", status_code=201)
async def webhook() -> dict[str, str]:
    """Events are welcome; nothing is trained by them."""
    return {"status": "ignored"}


@router.post("/delete")
async def delete(request: Request, tenant: Tenant, known: Known) -> dict[str, str]:
    """The backend was removed from a project: forget its token."""
    known.forget(_own(tenant, (await _parse(request, ProjectIn)).project))
    return {"status": "deleted"}


@router.get("/versions")
async def versions(ready: Ready) -> dict[str, list[str]]:
    """The one version there is."""
    return {"versions": [_version(ready)]}


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """What the tasks of one call have in common."""

    ready: Services
    tenant: str
    known: Projects
    body: PredictIn
    config: LabelConfig
    deadline: float


async def _annotate(task: Task, batch: _Batch) -> Annotation:
    """A prompted task fails aloud, since a user waits; in a batch a bad image leaves only its own task empty."""
    context = batch.body.context
    try:
        return await _try_to_annotate(task, batch)
    except (TemporaryError, DeadlineExceeded):
        raise
    except ServiceError as error:
        if context is not None:
            raise
        _log.warning("no prediction for task %r of project %r: %s", task.id, batch.body.project, error.message)
        return Annotation([], 0.0)


async def _try_to_annotate(task: Task, batch: _Batch) -> Annotation:
    ready, config, context = batch.ready, batch.config, batch.body.context
    if context is not None and not context.result:
        return Annotation([], 0.0)
    content = await batch.known.load_image(
        task.data.get(config.field), project=_own(batch.tenant, batch.body.project), task=task.id, fetch=ready.fetch
    )
    if context is None:
        return await annotate_everything(ready, content, tenant=batch.tenant, config=config, deadline=batch.deadline)
    return await annotate_prompted(
        ready,
        content,
        tenant=batch.tenant,
        config=config,
        prompts=context.result,
        deadline=ready.deadline(),
    )


def _own(tenant: str, project: object) -> str:
    """A project's name among all tenants': nobody gets at another's token by naming its project."""
    return f"{tenant}/{project}"


def _config(body: PredictIn) -> LabelConfig:
    prompts = body.context.result if body.context else []
    image = prompts[-1].to_name if prompts else None
    return parse_config(body.label_config, image=image, prompting={prompt.from_name for prompt in prompts})


def _version(ready: Services) -> str:
    spec = ready.backend.spec
    return f"{spec.variant}-{spec.revision[:12]}"


async def _parse(request: Request, kind: type[_Body]) -> _Body:
    """The body as far as it is needed; read in a thread, since all drafts of a task may come along."""
    content = await request.body()
    check_objects(content)
    try:
        return await asyncio.to_thread(kind.model_validate_json, content)
    except ValidationError as error:
        raise MalformedRequest(error) from error
