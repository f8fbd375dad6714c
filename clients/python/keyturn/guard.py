"""A function that runs only on what was approved *and done*.

What a guard is, plainly. The thing that acts is an executor, with its own credential, in another process; this function
never gets the right to act. A guard asks for a declared action, with the function's arguments as its parameters,
waits, and hands the outcome to the function if, and only if, the executor has done exactly that, once. So the body is
what comes *after* the act: read the export, tell the user, go on. A body that did the privileged thing itself, with a
credential of its own, would not be guarded by anything: nothing on this side of Kafka could keep it from being called
some other way.

- The first parameter of the function is the outcome (`keyturn.Succeeded`): without one it cannot be called.
- All other arguments are bound into the intent, defaults included, and the body gets copies made before asking: what
  it runs on is what was approved. What cannot be bound must be named (`unbound=`).
- Any other outcome raises `NotDoneError`, or goes to `otherwise`.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, overload

from keyturn.blocking import Client
from keyturn.client import HOUR, AsyncClient
from keyturn.errors import ConfigurationError, FieldError, NotDoneError, ParametersError
from keyturn.intents import Property
from keyturn.outcomes import NotDone, Succeeded

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Resource = tuple[str, str] | Callable[..., tuple[str, str]]
"""What is acted on: `("bucket", "acme-customers")`, or a function of the arguments it names."""
Text = str | Callable[..., str]
KeyOf = Callable[..., tuple[str, datetime]]
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@overload
def guard(
    client: Client,
    *,
    action: str,
    resource: Resource,
    reason: Text,
    fixed: Mapping[str, Property] | None = None,
    unbound: Collection[str] = (),
    ttl: timedelta | int = HOUR,
    timeout: timedelta | float | None = None,
    withdraw_on_cancel: bool = False,
    idempotency_key: KeyOf | None = None,
) -> Callable[[Callable[Concatenate[Succeeded, P], R]], Callable[P, R]]: ...
@overload
def guard(
    client: Client,
    *,
    action: str,
    resource: Resource,
    reason: Text,
    otherwise: Callable[[NotDone], T],
    fixed: Mapping[str, Property] | None = None,
    unbound: Collection[str] = (),
    ttl: timedelta | int = HOUR,
    timeout: timedelta | float | None = None,
    withdraw_on_cancel: bool = False,
    idempotency_key: KeyOf | None = None,
) -> Callable[[Callable[Concatenate[Succeeded, P], R]], Callable[P, R | T]]: ...
@overload
def guard(
    client: AsyncClient,
    *,
    action: str,
    resource: Resource,
    reason: Text,
    fixed: Mapping[str, Property] | None = None,
    unbound: Collection[str] = (),
    ttl: timedelta | int = HOUR,
    timeout: timedelta | float | None = None,
    withdraw_on_cancel: bool = False,
    idempotency_key: KeyOf | None = None,
) -> Callable[[Callable[Concatenate[Succeeded, P], Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]: ...
@overload
def guard(
    client: AsyncClient,
    *,
    action: str,
    resource: Resource,
    reason: Text,
    otherwise: Callable[[NotDone], T],
    fixed: Mapping[str, Property] | None = None,
    unbound: Collection[str] = (),
    ttl: timedelta | int = HOUR,
    timeout: timedelta | float | None = None,
    withdraw_on_cancel: bool = False,
    idempotency_key: KeyOf | None = None,
) -> Callable[[Callable[Concatenate[Succeeded, P], Awaitable[R]]], Callable[P, Coroutine[Any, Any, R | T]]]: ...
def guard(
    client: Client | AsyncClient,
    *,
    action: str,
    resource: Resource,
    reason: Text,
    otherwise: Callable[[NotDone], Any] | None = None,
    fixed: Mapping[str, Property] | None = None,
    unbound: Collection[str] = (),
    ttl: timedelta | int = HOUR,
    timeout: timedelta | float | None = None,
    withdraw_on_cancel: bool = False,
    idempotency_key: KeyOf | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function run only once an executor has done `action` with exactly these arguments.

    `resource`, `reason` and `idempotency_key` may be functions of the parameters they name. `fixed` adds parameters
    that no argument gives; `unbound` names arguments that are no part of what is approved. An argument that is None
    is left out. `otherwise` makes the function's answer of any other outcome (`otherwise=str` gives a sentence for a
    model).

    >>> from keyturn.testing import Keyturn
    >>> keyturn = Keyturn()
    >>> client = keyturn.connect("reporter")
    >>> @guard(client, action="s3.export", resource=lambda source: ("bucket", source), reason="the partner asked")
    ... def export(done: Succeeded, source: str, destination: str) -> str:
    ...     return f"{destination}: {done.receipt.summary}"
    >>> keyturn.approves()
    >>> export("acme-customers", "acme-exports")
    'acme-exports: done in memory'
    >>> keyturn.denies("no contract with them")
    >>> export("acme-customers", "acme-exports")
    Traceback (most recent call last):
    keyturn.errors.NotDoneError: denied, nothing was done: no contract with them
    >>> client.close()
    """
    asking = _Asking(action, resource, reason, dict(fixed or {}), frozenset(unbound), idempotency_key)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = asking.signature_of(function, is_async=isinstance(client, AsyncClient))
        if isinstance(client, AsyncClient):
            held = client

            @functools.wraps(function)
            async def guarded(*args: Any, **kwargs: Any) -> Any:
                call = asking.bind(signature, args, kwargs)
                intent = await held.submit(**call.submit, ttl=ttl)
                outcome = await intent.wait(timeout, withdraw_on_cancel=withdraw_on_cancel)
                if isinstance(outcome, Succeeded):
                    return await function(outcome, *call.args, **call.kwargs)
                return _other(outcome, otherwise)

            return _as_called(guarded, signature)
        blocking = client

        @functools.wraps(function)
        def guarded_blocking(*args: Any, **kwargs: Any) -> Any:
            call = asking.bind(signature, args, kwargs)
            outcome = blocking.submit(**call.submit, ttl=ttl).wait(timeout, withdraw_on_cancel=withdraw_on_cancel)
            if isinstance(outcome, Succeeded):
                return function(outcome, *call.args, **call.kwargs)
            return _other(outcome, otherwise)

        return _as_called(guarded_blocking, signature)

    return decorate


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: what is asked for, and what the function gets if that was done."""

    submit: dict[str, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Asking:
    """How a call becomes an intent."""

    action: str
    resource: Resource
    reason: Text
    fixed: dict[str, Property]
    unbound: frozenset[str]
    key: KeyOf | None

    def signature_of(self, function: Callable[..., Any], *, is_async: bool) -> inspect.Signature:
        """The function's, without the outcome. ConfigurationError when it can't be guarded."""
        name = getattr(function, "__qualname__", repr(function))
        if inspect.iscoroutinefunction(function) != is_async:
            raise ConfigurationError(
                f"{name}: an async function needs connect_async(), a plain one connect(): or it would block its "
                "event loop"
            )
        rest = list(inspect.signature(function).parameters.values())
        if not rest or rest.pop(0).kind in {inspect.Parameter.KEYWORD_ONLY, *_VARIADIC}:
            raise ConfigurationError(f"{name}: its first parameter gets the outcome: def f(done: keyturn.Succeeded, …)")
        names = {parameter.name for parameter in rest}
        if variadic := [parameter.name for parameter in rest if parameter.kind in _VARIADIC]:
            raise ConfigurationError(f"{name}: *{variadic[0]} can't be bound: what is approved must have a name")
        if astray := (self.unbound - names) | (self.fixed.keys() & names):
            raise ConfigurationError(
                f"{name}: unbound= names arguments, fixed= what no argument gives: {sorted(astray)}"
            )
        for text in (self.resource, self.reason, self.key):
            if callable(text) and (unmet := _named(text) - names - self.fixed.keys()):
                raise ConfigurationError(f"{name}: neither an argument nor fixed= is called {min(unmet)!r}: see {text}")
        return inspect.Signature(rest)

    def bind(self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        """This call; TypeError as the function itself would raise it, ParametersError for what can't be asked for."""
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name not in self.unbound:
                bound.arguments[name] = _own(name, value)
        arguments = dict(bound.arguments)
        said = {**self.fixed, **arguments}
        properties = {
            name: value for name, value in arguments.items() if name not in self.unbound and value is not None
        }
        submit: dict[str, Any] = {
            "action": self.action,
            "resource": _of(self.resource, said),
            "properties": {**self.fixed, **{name: _copy(value) for name, value in properties.items()}},
            "reason": _of(self.reason, said),
        }
        if self.key is not None:
            submit["idempotency_key"], submit["since"] = _of(self.key, said)
        return _Call(submit, bound.args, bound.kwargs)


def _own(name: str, value: Any) -> Any:
    """A copy that nobody else holds: while people think, nobody changes what was approved."""
    if value is None or type(value) in {str, int, bool}:
        return value
    if type(value) in {list, tuple} and all(type(item) in {str, int, bool} for item in value):
        return _copy(value)
    raise ParametersError(
        [
            FieldError(
                f"/action/properties/{name}",
                f"{type(value).__name__} can't be shown to people as it is: give str, int, bool or a list of "
                "these, or name it "
                "in unbound=, if it is no part of what they approve",
            )
        ]
    )


def _copy(value: Any) -> Any:
    return type(value)(value) if isinstance(value, list | tuple) else value


def _named(function: Callable[..., Any]) -> set[str]:
    return {each.name for each in inspect.signature(function).parameters.values() if each.kind not in _VARIADIC}


def _of(value: Any, arguments: Mapping[str, Any]) -> Any:
    """A value, or what a function makes of the arguments it names."""
    if not callable(value):
        return value
    takes_all = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(value).parameters.values())
    named = _named(value)
    return value(**{name: given for name, given in arguments.items() if takes_all or name in named})


def _other(outcome: NotDone, otherwise: Callable[[NotDone], Any] | None) -> Any:
    if otherwise is None:
        raise NotDoneError(outcome)
    return otherwise(outcome)


def _as_called(guarded: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """Frameworks that read a tool's signature must not see the outcome: nobody passes it."""
    guarded.__signature__ = signature  # type: ignore[attr-defined] # inspect.signature honours it
    hints = guarded.__annotations__
    guarded.__annotations__ = {name: hints[name] for name in (*signature.parameters, "return") if name in hints}
    del guarded.__wrapped__  # type: ignore[attr-defined] # nor follow it to the function itself
    return guarded
