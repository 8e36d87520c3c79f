"""The part of Label Studio's ML backend contract that is read; drafts and everything else that it sends is skipped."""

from typing import Any

from pydantic import BaseModel, Field, FiniteFloat


class PromptValue(BaseModel):
    """Where a prompt was drawn, in percent of the image, and under which label."""

    x: FiniteFloat = 0.0
    y: FiniteFloat = 0.0
    width: FiniteFloat = 0.0
    height: FiniteFloat = 0.0
    rotation: FiniteFloat = 0.0
    keypointlabels: list[str] = []
    rectanglelabels: list[str] = []
    labels: list[str] = []

    @property
    def chosen(self) -> list[str]:
        """The labels that it was drawn with, wherever they stand."""
        return self.keypointlabels + self.rectanglelabels + self.labels


class PromptRegion(BaseModel):
    """One region of the interactive context."""

    from_name: str = ""
    to_name: str | None = None
    type: str
    is_positive: bool = True
    image_rotation: int = 0
    value: PromptValue


class Context(BaseModel):
    """What the user has drawn for one object."""

    result: list[PromptRegion] = []


class Params(BaseModel):
    """Only `context` matters; it is null when predictions are fetched for whole tasks."""

    context: Context | None = None


class Task(BaseModel):
    """A task; `data` has the image's address in a field that the config names."""

    id: int | str | None = None
    data: dict[str, Any]


class PredictIn(BaseModel):
    """POST /predict."""

    tasks: list[Task]
    project: str | int | None = None
    label_config: str
    params: Params | None = None

    @property
    def context(self) -> Context | None:
        """What was prompted, or None when predictions are fetched for whole tasks."""
        return self.params.context if self.params else None


class SetupIn(BaseModel):
    """POST /setup."""

    project: str | int | None = None
    schema_: str | None = Field(None, alias="schema")
    hostname: str | None = None
    access_token: str | None = None


class ProjectIn(BaseModel):
    """POST /delete."""

    project: str | int | None = None
