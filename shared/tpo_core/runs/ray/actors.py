"""A number of Ray actors that hold the same, of which one that dies is replaced."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.masking import hidden_errors
from tpo_core.runs.ray.carried import Carried
from tpo_core.runs.ray.cluster import imported

__all__ = ["RayActors"]

TRIES = 3
"""How many actors may die of one call, until it has failed: a call that kills whoever makes it must end."""

logger = logging.getLogger(__name__)


class RayActors:
    """Ray actors, each with a thing of its own; a context manager.

    Ray must be connected; see ``connected``. A call goes to the actor with the fewest calls. One that is lost with its
    actor is made again by another, and the actor is replaced.

    Args:
        make: Makes what an actor holds, in the actor's process. Ray pickles it: it may be a function of a module that
            the workers have, a ``functools.partial``, or a lambda.
        count: How many actors.
        wait: Most seconds until they are up. With one or more the work begins; those that come later take part.
        **options: Of each actor, as Ray has them: ``num_cpus``, ``num_gpus``, ``resources``. 0 processors by default.

    Raises:
        InvalidInputError: ``count`` is below 1, or Ray is not installed.
        ModelError: No actor came up. What ``make`` raises is raised, too.
    """

    def __init__(self, make: Callable[[], Any], count: int = 1, *, wait: float = 120.0, **options: Any) -> None:
        """Start them, and wait until they are up."""
        if count < 1:
            raise InvalidInputError(f"the number of Ray actors must be at least 1, not {count}")
        self._ray = imported()
        self.count, self._make, self._options = count, make, {"num_cpus": 0, **options}
        self._lock, self._open = threading.Lock(), True
        self._places = [self._started() for _ in range(count)]
        try:
            self._wait(wait)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the actors, and whatever they are doing."""
        with self._lock:
            self._open = False
        if self._ray.is_initialized():
            for place in self._places:
                self._ray.kill(place.actor)

    def __enter__(self) -> RayActors:
        """Close at the end of a ``with`` block."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close."""
        self.close()

    def attributes(self, *names: str) -> Mapping[str, Any]:
        """Return attributes of what an actor holds; all of them can be pickled."""
        found: Mapping[str, Any] = self.call("", names)
        return found

    def call(self, method: str, *args: Any) -> Any:
        """Have an actor await an async method of what it holds, and wait for it.

        Raises:
            ModelError: Several actors died of it, one after the other.
            Exception: As the method raised it: of the same class where that is Python's or this project's own.
        """
        for left in reversed(range(TRIES)):
            with self._sent(left, method, args) as sent:
                return _opened(self._ray.get(sent))
        raise AssertionError("the last try returns or raises")

    async def acall(self, method: str, *args: Any) -> Any:
        """Have an actor await a method, without blocking; see ``call``."""
        for left in reversed(range(TRIES)):
            with self._sent(left, method, args) as sent:
                return _opened(await sent)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def _sent(self, left: int, method: str, args: tuple[Any, ...]) -> Iterator[Any]:
        """Give the answer to come of one call; swallow that its actor was lost, while tries are left."""
        place, sent = self._chosen(), None
        try:
            yield (sent := place.actor.call.remote(method, args))
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
            self._replace(place)
            if not left:
                raise ModelError(f"{TRIES} Ray actors were lost in the middle of a call: {error}") from error
        except self._ray.exceptions.RayError as error:
            raise ModelError(f"a call to a Ray actor failed: {error}") from error
        except BaseException as error:
            if sent is not None and not isinstance(error, Exception):  # cancelled or interrupted: nobody waits for it
                self._ray.cancel(sent)
            raise
        finally:
            with self._lock:
                place.out -= 1

    def _chosen(self) -> _Place:
        """Return the actor with the fewest calls, of those that are up where there are any; one call more is its."""
        with self._lock:
            place = min(self._places, key=lambda place: (not self._is_up(place), place.out))
            place.out += 1
            return place

    def _started(self) -> _Place:
        actor = self._ray.remote(_Held).options(**self._options).remote(self._make)
        return _Place(actor, actor.call.remote("", ((),)))

    def _replace(self, lost: _Place) -> None:
        with self._lock:
            if self._open and lost in self._places:  # else it was replaced for another call
                self._places[self._places.index(lost)] = self._started()
                self._ray.kill(lost.actor)  # it may only be out of reach
                logger.warning("a Ray actor was lost and is replaced")

    def _wait(self, seconds: float) -> None:
        up, missing = self._ray.wait([p.up for p in self._places], num_returns=len(self._places), timeout=seconds)
        if not up:
            raise ModelError(
                f"no Ray actor with {self._options} came up within {seconds:g} s; the cluster has "
                f"{self._ray.cluster_resources()}"
            )
        if missing:
            logger.warning("%d of %d Ray actors are not up yet; the work begins", len(missing), len(self._places))
        try:
            for answer in self._ray.get(up):
                _opened(answer)
        except self._ray.exceptions.RayError as error:
            raise ModelError(f"a Ray actor could not be started: {error}") from error

    def _is_up(self, place: _Place) -> bool:
        if not place.is_up:
            place.is_up = bool(self._ray.wait([place.up], timeout=0)[0])
        return place.is_up


def _opened(answer: Any) -> Any:
    if isinstance(answer, Carried):
        raise answer.error()
    return answer


class _Place:
    """An actor, and how many calls it is making."""

    def __init__(self, actor: Any, up: Any) -> None:
        self.actor, self.up, self.out, self.is_up = actor, up, 0, False


class _Held:
    """What runs in an actor's process. Its answers may be ``Carried``: what was raised there."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._held: Any = None
        self._error: Carried | None = None
        try:
            with hidden_errors():
                self._held = make()
        except Exception as error:  # noqa: BLE001 - told to whoever asks
            self._error = Carried.of(error)

    async def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Await a method of what is held; without a name, return the attributes that are named."""
        try:
            if self._error is not None:
                return self._error
            if not method:
                return {name: getattr(self._held, name) for name in args[0]}
            with hidden_errors():
                return await getattr(self._held, method)(*args)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            return Carried.of(error)
