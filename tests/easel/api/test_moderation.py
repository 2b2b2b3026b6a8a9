"""A classifier, here by HTTP, judges prompts before their job is admitted and images before they are delivered."""

import base64
import dataclasses
import io
import json
import uuid

import pytest
from django.conf import settings

from billing.ledger.accounts import balances_by_kind
from easel.jobs import dispatch, lifecycle, moderation
from easel.jobs.models import Job, Output, State
from easel.jobs.storage_keys import output_key
from easel.processes.image_judging import ImageJudging
from easel.storage import store
from inference.contract import AttemptFinished, StoredOutput
from tenants.models import Moderation
from tenants.moderation import ModerationCategoryInvalid, moderation_set
from tests.conftest import NOW
from tests.easel.api.conftest import PNG, call
from tests.receiver import receiving


class Classifier:
    """What the tenant's requests meet: `receiver` was asked, and answers as it is told."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.says()

    def says(self, *, flagged=False, categories=None, scores=None):
        result = {"flagged": flagged, "categories": categories or {}, "category_scores": scores or {}}
        self.receiver.body = json.dumps({"id": "modr-1", "model": "m", "results": [result]}).encode()

    @property
    def asked(self):
        return [json.loads(body) for _, body in self.receiver.seen]


@pytest.fixture
def configured(monkeypatch):
    def configure(**changes):
        monkeypatch.setattr(settings, "EASEL", dataclasses.replace(settings.EASEL, **changes))

    return configure


@pytest.fixture
def classifier(configured):
    with receiving() as receiver:
        configured(moderation_url=receiver.url.removesuffix("/hook"), moderation_key="secret")
        yield Classifier(receiver)


@pytest.fixture
def policy(alice):
    def put(judged=Moderation.PROMPTS, *categories):
        moderation_set(tenant=alice.tenant, moderation=judged, categories=categories)

    return put


def submitted(customer, body, prompt):
    return call("POST", "/v1/jobs", customer, json=body(prompt=prompt))


def test_a_flagged_prompt_is_refused_like_a_listed_one_and_makes_no_job(alice, body, classifier, policy):
    policy()
    classifier.says(flagged=True)
    answer = submitted(alice, body, f"something bad {uuid.uuid4()}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "moderation_blocked")
    assert not Job.objects.filter(tenant=alice.tenant).exists()
    assert balances_by_kind(alice.tenant)["held"] == 0
    [(headers, _)] = classifier.receiver.seen
    assert headers["authorization"] == "Bearer secret"


def test_a_prompt_is_asked_about_once_and_of_a_tenant_without_the_policy_never(alice, bob, body, classifier, policy):
    policy()
    prompt = f"something good {uuid.uuid4()}"
    assert [submitted(who, body, prompt).status_code for who in (alice, alice, bob)] == [202, 202, 202]
    [asked] = classifier.asked
    assert asked["input"] == [{"type": "text", "text": prompt}]


def test_a_tenants_categories_decide_by_flag_or_by_score(alice, body, classifier, policy):
    classifier.says(
        flagged=True, categories={"violence": False, "sexual": True}, scores={"violence": 0.3, "sexual": 0.9}
    )
    refused = {}
    for categories in (["violence"], ["sexual"], ["violence=0.4"], ["violence=0.3"], ["violence", "sexual=1"]):
        policy(Moderation.PROMPTS, *categories)
        refused[", ".join(categories)] = submitted(alice, body, "a battle").status_code == 400
    assert refused == {
        "violence": False,
        "sexual": True,
        "violence=0.4": False,
        "violence=0.3": True,
        "violence, sexual=1": False,
    }


DEEP = b"[" * 100_000
HUGE = b'{"results": [{"flagged": false}], "more": "' + b"x" * 2**20 + b'"}'


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b'{"results": []}', b'{"results": [{"flagged": "no"}]}', b"[1]", b'{"results": [1]}', DEEP, HUGE],
    ids=lambda answer: answer[:40].decode(),
)
def test_without_a_verdict_a_prompt_is_refused_for_now(alice, body, classifier, policy, answer):
    policy()
    classifier.receiver.body = answer or b" "
    answer = submitted(alice, body, f"a cat {uuid.uuid4()}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "moderation_unavailable")
    assert answer.headers["x-should-retry"] == "true"
    assert len(classifier.receiver.seen) == moderation.TRIES


def test_a_score_that_is_no_number_is_no_verdict(alice, body, classifier, policy):
    policy(Moderation.PROMPTS, "violence=0.4")
    classifier.says(scores={"violence": float("nan")})
    assert submitted(alice, body, f"a {uuid.uuid4()}").json()["error"]["code"] == "moderation_unavailable"


def test_an_answer_that_trickles_is_no_verdict(alice, body, classifier, policy, monkeypatch):
    monkeypatch.setattr(moderation, "ANSWER_SECONDS", -1.0)  # so that whatever comes is late
    policy()
    assert submitted(alice, body, f"a {uuid.uuid4()}").json()["error"]["code"] == "moderation_unavailable"


def test_an_operator_may_let_prompts_pass_without_a_verdict(alice, body, classifier, configured, policy):
    policy()
    classifier.receiver.status = 500
    configured(moderation_fails_open=True)
    assert submitted(alice, body, f"a cat {uuid.uuid4()}").status_code == 202


@pytest.mark.parametrize("category", ["", "violence=2", "violence=", "x" * 90, "a,b"])
def test_a_category_is_a_name_with_or_without_a_score(alice, category):
    with pytest.raises(ModerationCategoryInvalid):
        moderation_set(tenant=alice.tenant, moderation=Moderation.ALL, categories=[category])


@pytest.fixture
def finished(alice, pool, submit, policy, classifier):
    """A worker's report of an image that it has stored, of a tenant whose images are judged."""
    policy(Moderation.ALL)
    moderation._verdicts[moderation._key("a red circle", alice.tenant)] = (float("inf"), False)
    submit(alice, prompt="a red circle")
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    store().put(output_key(attempt.job, attempt.token, 0), io.BytesIO(PNG), "image/png")
    output = StoredOutput(index=0, seed=1, sha256="0" * 64, size_bytes=len(PNG))
    return AttemptFinished(
        attempt_token=str(attempt.token),
        worker="w1",
        gpu_class="cpu",
        outcome="succeeded",
        gpu_seconds=1.5,
        outputs=(output,),
    )


def ended(pool, report):
    judging = ImageJudging()
    while (judged := judging.judged(pool, report)) is None:
        pass
    lifecycle.finish(pool=pool, report=judged, now=NOW, attempts_max=3)
    return Job.objects.get(attempts__token=report.attempt_token)


def test_a_flagged_image_is_nobodys_and_is_not_charged(alice, pool, finished, classifier):
    before = balances_by_kind(alice.tenant)
    classifier.says(flagged=True)
    job = ended(pool, finished)
    assert (job.state, job.error_code) == (State.FAILED, "image_moderation_blocked")
    assert not Output.objects.filter(job=job).exists()
    after = balances_by_kind(alice.tenant)
    assert after["held"] == 0
    assert after["credit"] == before["credit"] + before["held"]
    [asked] = classifier.asked
    image = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert asked["input"][1] == {"type": "image_url", "image_url": {"url": image}}


def test_an_image_that_passes_is_delivered(pool, finished):
    assert ended(pool, finished).state == State.SUCCEEDED


def test_without_a_verdict_an_image_is_not_delivered(pool, finished, classifier):
    classifier.receiver.status = 500
    job = ended(pool, finished)
    assert (job.state, job.error_code) == (State.FAILED, "image_moderation_unavailable")
