"""Errors of routing, rollouts and experiments."""

from core.errors import DomainError, NotFound


class WeightsInvalid(DomainError):
    """Weights must be whole percents from 1 to 100 that sum to 100."""

    code = "weights_invalid"


class RolloutRunning(DomainError):
    """A rollout of this model is running: promote it or roll it back first."""

    code, http_status = "rollout_running", 409


class RolloutEnded(DomainError):
    """This rollout has ended: start a new one."""

    code, http_status = "rollout_ended", 409


class RolloutNotFound(NotFound):
    """There is no such rollout: `GET /v1/rollouts` lists them."""

    code = "rollout_not_found"


class RolloutInvalid(DomainError):
    """The rollout can't start; the message says why."""

    code = "rollout_invalid"


class ExperimentNotFound(NotFound):
    """There is no such experiment: `GET /v1/experiments` lists yours."""

    code = "experiment_not_found"


class ExperimentInvalid(DomainError):
    """The experiment can't start; the message says why."""

    code = "experiment_invalid"


class ExperimentExists(DomainError):
    """An experiment of this name exists, or another one runs on this model."""

    code, http_status = "experiment_exists", 409
