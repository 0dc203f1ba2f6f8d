"""All commands on a whole script: run it, watch what trains in it, report on each model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from gradcheck_cli.config import Settings
from gradcheck_cli.drive import script as scripts
from gradcheck_cli.drive.ranks.followed import Follower, followed
from gradcheck_cli.drive.ranks.strategies import OWN, Strategy
from gradcheck_cli.errors import GradcheckError, TargetError
from gradcheck_cli.judgement import check_selection, join_reports
from gradcheck_cli.loggers import Log
from gradcheck_cli.observe.audit.auditor import Auditor
from gradcheck_cli.observe.loss_scales import LossScales
from gradcheck_cli.observe.peers import Peers
from gradcheck_cli.observe.session import Session
from gradcheck_cli.observe.watched import Watched
from gradcheck_cli.pipeline.preparation import Progress, Watcher, versions
from gradcheck_cli.pipeline.profiling import Enough, compiled_note, never, recorder_settings, run_eagerly
from gradcheck_cli.pipeline.team import Team
from gradcheck_cli.records import Recording, Report, RunInfo
from gradcheck_cli.targets import Script

Judge = Callable[[Recording, Settings, GradcheckError | None], Report]


@dataclass(frozen=True)
class ScriptRun:
    """What a script was seen to do; `error` is its own failure, if it failed."""

    recordings: tuple[Recording, ...]
    error: GradcheckError | None = None


def report_on(
    script: Script, settings: Settings, watch: Watcher, judge: Judge, enough: Enough = never
) -> tuple[Report, GradcheckError | None]:
    """Run a script and judge every model that it trained; the first report holds the others.

    `enough` is asked after every step of a model, with the number of its steps, whether the script may end (`stable`).
    The error is the script's own, if it failed. Raises GradcheckError when no step was recorded.
    """
    check_selection(settings)
    seen = record(script, settings, watch, enough)
    return join_reports([judge(recording, settings, seen.error) for recording in seen.recordings]), seen.error


def record(script: Script, settings: Settings, watch: Watcher, enough: Enough = never) -> ScriptRun:
    """Run the script to its end, or to the end that the settings ask for, and record every optimizer's steps."""
    limit, stopped, ended = None if settings.to_the_end else settings.steps, False, ""

    def stepped(one: Watched) -> None:
        nonlocal stopped, ended
        recorder = one.recorder
        watch(Progress(recorder.steps, limit, recorder.latest("loss"), recorder.latest("grad_norm")))
        if not recorder.ended and enough(recorder.taken, recorder):
            ended = "stable"
        if ended or recorder.ended or (limit and recorder.taken >= limit):
            stopped = True
            raise scripts.ScriptStop

    error = None
    log = Log(settings.log)
    with followed(settings.timeout) as follower:
        teams = Teams(follower)
        session, auditor = Session(recorder_settings(settings, log), stepped, teams.peers_of), Auditor()
        with run_eagerly(settings), session, auditor:
            try:
                scripts.run(script)
            except KeyboardInterrupt:
                ended = "interrupted"
            except GradcheckError as failure:
                error, ended = failure, "failed"
        trained = [one for one in session.watched if one.recorder.taken]
        cut_short = ended in ("interrupted", "failed")
        if not trained or (cut_short and not follower.group.is_alone):  # what ranks put together needs all of them
            raise error or nothing_trained(script, ended)
        scales = session.scales
        with log:  # the last steps may come over only now
            done = [(one, finish(one, script, settings, ended, len(trained) > 1, scales)) for one in trained]
        first, *others = [teams.join(one, recording) for one, recording in done]
    first = replace(first, run=replace(first.run, notes=first.run.notes + log.notes))
    return ScriptRun((replace(first, audit=auditor.audit(ended=not stopped)), *others), error)


class Teams:
    """Who trains each of a script's models, where several ranks do."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._teams: list[tuple[Team, Peers]] = []

    def peers_of(self, model: nn.Module) -> Peers:
        """The other ranks, as the model synchronises with them."""
        group = self._follower.group
        team = Team() if group.is_alone else Team(group, Strategy.of(OWN, model))
        self._teams.append((team, team.peers_of(model)))
        return self._teams[-1][1]

    def join(self, one: Watched, recording: Recording) -> Recording:
        """The recording of all ranks, of what this one has recorded."""
        peers = one.recorder.peers
        team = next(team for team, own in self._teams if own is peers)
        return team.join(recording, one.model, peers)


def nothing_trained(script: Script, ended: str) -> TargetError:
    """The error for a run without a single step."""
    if ended == "interrupted":
        return TargetError("interrupted before there was anything to report")
    return TargetError(
        f"{script.words} ran to its end, but no optimizer took a step",
        "does it need arguments to train? They follow --: gradcheck profile train.py -- --epochs 1",
    )


def finish(
    one: Watched, script: Script, settings: Settings, ended: str, is_one_of_several: bool, scales: LossScales
) -> Recording:
    """What was recorded of one model."""
    recording = one.recorder.recording(describe(one, script, settings, ended, is_one_of_several))
    return replace(recording, run=scales.with_notes(one, replace(recording.run, notes=tuple(compiled_note(recording)))))


def describe(one: Watched, script: Script, settings: Settings, ended: str, is_one_of_several: bool) -> RunInfo:
    """How one model was trained, as far as it was seen."""
    return RunInfo(
        target=script.words,
        model=one.name if is_one_of_several else "",
        device=str(one.device),
        precision=one.precision,
        seed=None,
        accumulate=max(1, one.backwards),
        max_norm=one.recorder.max_norm,
        steps_requested=0 if settings.to_the_end else settings.steps,
        training=one.training,
        optimizer="updates by hand" if one.by_hand else type(one.optimizer).__name__,
        uses_scaler=one.scaled,
        sees_loss=one.sees_loss,
        ended=ended or one.recorder.ended or "completed",
        versions=versions(),
        threads=torch.get_num_threads(),
    )
