"""``@task.gemini_batch``: a function gives the rows, the task does the rest.

    @task.gemini_batch(model="gemini-3.8-flash", template=QUESTION, to=ANSWERS)
    def questions(data_interval_start=None):
        for line in lines_since(data_interval_start):
            yield {"id": line.number, "text": line.text}

Imported from here it is the same with types, so that an editor knows its arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import DecoratedOperator, determine_kwargs, task_decorator_factory

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.hooks.landing import outlets_with
from airflow_provider_geminibatch.operators.batch import GeminiBatchOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_geminibatch.hooks.landing import Landing
    from airflow_provider_geminibatch.storage.sources import Source

Rows = Iterable[Mapping[str, Any]]
Function = TypeVar("Function", bound=Callable[..., Rows])


class GeminiBatchDecoratedOperator(DecoratedOperator, GeminiBatchOperator):
    """What a decorated function becomes: GeminiBatchOperator with the function as its source.

    The function is called only when nothing is sealed yet: not by a retry, not when a deferred task goes on. It is read
    row by row and never held as a list.
    """

    custom_operator_name = "@task.gemini_batch"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in GeminiBatchOperator.template_fields if name not in ("source", "source_kwargs", "requests")),
    )
    template_fields_renderers = {  # noqa: RUF012 - Airflow's own form
        **DecoratedOperator.template_fields_renderers,
        "template": "json",
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Rows],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("source", "source_kwargs", "requests"):
            if kwargs.get(name) is not None:
                raise Unusable(f"@task.gemini_batch({name}=…)", "the function is the source", f"Leave {name}= out.")
        # Without a template the rows are requests already.
        role = "requests" if kwargs.get("template") is None else "source"
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            kwargs_to_upstream={role: python_callable},
            **kwargs,
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """As GeminiBatchOperator; not what Airflow's class does, which would call the function at every try."""
        return GeminiBatchOperator.execute(self, context)

    def _source(self, context: Context) -> Source:
        from airflow_provider_geminibatch.storage.sources import CallableSource

        function = functools.partial(self.python_callable, *self.op_args)
        offered = {**context, **self.op_kwargs}
        return CallableSource(function, determine_kwargs(self.python_callable, self.op_args, offered))


def gemini_batch(
    function: Function | None = None,
    *,
    model: str,
    to: Landing,
    **arguments: Any,
) -> TaskDecorator:
    """A task that asks Gemini about every row that the decorated function gives, and lands the answers as one window.

    The function yields rows (dicts, with ``template=``) or ready-made requests (``{"key", "request"}``). It may take
    arguments, also of other tasks and by ``.expand()``, and names the context variables that it wants. ``.expand()``
    makes a batch of each element; give each its own ``window=``, since a window has one owner.

    :param model: The model, with or without ``models/``.
    :param to: The landing.
    :param arguments: All other arguments of GeminiBatchOperator and of every operator.
    """
    return _made(function, model=model, to=to, **arguments)


def gemini_batch_task(python_callable: Callable[..., Rows] | None = None, **arguments: Any) -> TaskDecorator:
    """What Airflow calls for ``@task.gemini_batch``."""
    return _made(python_callable, **arguments)


def _made(function: Callable[..., Rows] | None, **arguments: Any) -> TaskDecorator:
    # A mapped task gets its outlets while the Dag is parsed, when there is no operator yet that could add them.
    to = arguments.get("to")
    outlets = arguments.pop("outlets", None)
    outlets = [*(outlets or ())] if to is None else outlets_with(to, outlets)
    return task_decorator_factory(
        python_callable=function,
        multiple_outputs=False,
        decorated_operator_class=GeminiBatchDecoratedOperator,
        outlets=outlets,
        **arguments,
    )
