"""Errors of routing, rollouts and experiments."""

from core.errors import DomainError, NotFound


class WeightsInvalid(DomainError, code="weights_invalid"):
    """Weights must be whole percents from 1 to 100 that sum to 100."""


class RolloutRunning(DomainError, code="rollout_running", http_status=409):
    """A rollout of this model is running: promote it or roll it back first."""


class RolloutEnded(DomainError, code="rollout_ended", http_status=409):
    """This rollout has ended: start a new one."""


class RolloutNotFound(NotFound, code="rollout_not_found"):
    """There is no such rollout: `GET /v1/rollouts` lists them."""


class RolloutInvalid(DomainError, code="rollout_invalid"):
    """The rollout can't start; the message says why."""


class ExperimentNotFound(NotFound, code="experiment_not_found"):
    """There is no such experiment: `GET /v1/experiments` lists yours."""


class ExperimentInvalid(DomainError, code="experiment_invalid"):
    """The experiment can't start; the message says why."""


class ExperimentExists(DomainError, code="experiment_exists", http_status=409):
    """An experiment of this name exists, or another one runs on this model."""
