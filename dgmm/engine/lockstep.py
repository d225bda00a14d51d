"""Full passes that several mixtures share: one read of the data serves the E-step of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from dgmm.engine.likelihood import Candidate, e_steps
from dgmm.engine.passes import Passes
from dgmm.engine.sampled import Run
from dgmm.engine.trace import Step
from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.em import EM


@dataclass(frozen=True, eq=False)
class Member:
    """A mixture that takes part.

    Attributes
    ----------
    em : EM
        Its iteration.
    radius_squared : float
        See `Components.prepare`.
    run : Run
        As far as it came.
    """

    em: EM
    radius_squared: float
    run: Run

    @property
    def finished(self) -> bool:
        """It takes part no more."""
        return bool(self.run.failed) or self.em.finished(self.run.state)

    @property
    def candidate(self) -> Candidate:
        """What a pass needs to know of it."""
        return Candidate(self.run.state.at, self.em.frame, self.radius_squared)


def shared_passes(
    passes: Passes,
    members: Mapping[str, Member],
    beaten: Callable[[Mapping[str, Run]], Collection[str]] = lambda _: (),
) -> Iterator[dict[str, Run]]:
    """Yield every member's run after each pass, until all are finished.

    Parameters
    ----------
    passes : Passes
    members : mapping of str to Member
        By name.
    beaten : callable
        Names those that need go on no more, from all runs so far.

    Raises
    ------
    IllDefinedCovariance
        Of the last member that was left.
    """
    members = dict(members)
    while True:
        out = beaten({name: member.run for name, member in members.items()})
        active = [name for name, member in members.items() if not (member.finished or name in out)]
        if not active:
            return
        began = time.perf_counter()
        active = _sound(members, active)
        candidates = [members[name].candidate for name in active]
        ridges = [members[name].em.ridge for name in active]
        found = e_steps(passes, candidates, ridges, passes.source.n_rows) if active else []
        for name, statistics in zip(active, found, strict=True):
            member = members[name]
            state = member.em.advance(member.run.state, statistics)
            step = Step.of(state, time.perf_counter() - began)
            run = replace(member.run, state=state, trace=(*member.run.trace, step))
            members[name] = replace(member, run=run)
        yield {name: member.run for name, member in members.items()}


def _sound(members: dict[str, Member], active: list[str]) -> list[str]:
    """Those that an E-step can be made of; the others are marked as failed."""
    sound = []
    for name in active:
        parameters = members[name].run.state.at
        try:
            parameters.covariance.precision_cholesky(parameters.covariances)
        except IllDefinedCovariance as error:
            failed = replace(members[name].run, failed=str(error))
            members[name] = replace(members[name], run=failed)
            if all(member.run.failed for member in members.values()):
                raise
        else:
            sound.append(name)
    return sound
