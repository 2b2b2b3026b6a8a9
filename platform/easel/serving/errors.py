"""Errors of routing, rollouts and experiments."""

from core.errors import DomainError, NotFound


class WeightsInvalid(DomainError, code="weights_invalid"):
    """Weights must be whole percents from 1 to 100 that sum to 100.

    Give whole percents from 1 to 100 that sum to 100.
    """


class AliasInvalid(DomainError, code="alias_invalid"):
    """The alias can't be set; the message says why.

    Correct what the message names.
    """


class AliasNotFound(NotFound, code="alias_not_found"):
    """There is no such alias: `easel model aliases` lists them.

    Take the name, and its tenant if it has one, from `easel model aliases`.
    """


class ModelNameTaken(DomainError, code="model_name_taken", http_status=409):
    """A model and an alias can't have the same name.

    Choose another name, or remove the alias (`easel model unalias`).
    """


class RolloutRunning(DomainError, code="rollout_running", http_status=409):
    """A rollout of this model is running: promote it or roll it back first.

    Promote the running rollout, or roll it back.
    """


class RolloutEnded(DomainError, code="rollout_ended", http_status=409):
    """This rollout has ended: start a new one.

    Start a new rollout.
    """


class RolloutNotFound(NotFound, code="rollout_not_found"):
    """There is no such rollout: `GET /v1/rollouts` lists them.

    Take the id from `GET /v1/rollouts`.
    """


class RolloutInvalid(DomainError, code="rollout_invalid"):
    """The rollout can't start; the message says why.

    Correct the plan as the message says.
    """


class ExperimentNotFound(NotFound, code="experiment_not_found"):
    """There is no such experiment: `GET /v1/experiments` lists yours.

    Take the name from `GET /v1/experiments`.
    """


class ExperimentInvalid(DomainError, code="experiment_invalid"):
    """The experiment can't start; the message says why.

    Correct the arms as the message says.
    """


class ExperimentExists(DomainError, code="experiment_exists", http_status=409):
    """An experiment of this name exists, or another one runs on this model.

    Choose another name, or stop the experiment that runs on this model.
    """
