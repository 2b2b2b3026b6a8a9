"""Held against the real Redis: what a pool's worker may touch there, and what it is refused."""

import uuid

import celery
import pytest
import redis
from django.conf import settings

from core.redis_client import redis_client
from easel.catalog.errors import NamespaceUnsafe
from easel.catalog.models import Pool
from easel.catalog.redis_users import WORKER_COMMANDS, redis_password, redis_user_set, worker_redis_url
from easel.processes import dispatcher
from inference.contract import QUEUE, cancel_key, reports_key
from tests.conftest import NOW

SECRET = "only for tests"


@pytest.fixture
def pool_of():
    """Makes pools with their users."""

    def make(name):
        slug = f"{name}-{uuid.uuid4().hex[:8]}"
        pool = Pool.objects.create(slug=slug, namespace=f"easel-t-{slug}", gpu_class="cpu", created_at=NOW)
        redis_user_set(redis_client(), pool, secret=SECRET)
        return pool

    return make


@pytest.fixture
def acme(pool_of):
    return pool_of("acme")


@pytest.fixture
def neighbour(pool_of):
    return pool_of("neighbour")


def url_of(pool):
    return worker_redis_url(settings.EASEL.redis_url, pool, secret=SECRET)


@pytest.fixture
def worker(acme):
    """The connection of acme's worker."""
    return redis.Redis.from_url(url_of(acme))


def app_of(pool, url):
    app = celery.Celery(broker=url, set_as_current=False)
    app.conf.update(broker_transport_options={"global_keyprefix": f"{pool.namespace}:"}, task_publish_retry=False)
    return app


def test_a_worker_of_easel_0_2_takes_its_pools_tasks_and_looks_for_none_of_dead_workers(acme):
    """Its transport notes what is not acknowledged, and looks for such notes whenever it has waited in vain."""
    received = []
    app = app_of(acme, url_of(acme))
    with app.connection() as connection, app.amqp.TaskConsumer(connection, queues=[app.amqp.queues[QUEUE]]) as consumer:
        consumer.register_callback(lambda body, message: (received.append(message), message.ack()))
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        app_of(acme, settings.EASEL.redis_url).send_task("generate", args=[1], queue=QUEUE)
        connection.drain_events(timeout=5)
    assert [message.headers["task"] for message in received] == ["generate"]
    assert redis_client().exists(f"{acme.namespace}:unacked", f"{acme.namespace}:unacked_index") == 0


def test_a_worker_reports_and_looks_for_cancellations_in_its_namespace(acme, worker):
    worker.xadd(reports_key(acme.namespace), {"report": "{}"})
    assert worker.exists(cancel_key(acme.namespace, "token")) == 0


# The server lets everyone call these, since they come before a login.
BEFORE_LOGIN = {"auth", "hello", "quit", "reset"}
# Their arguments, with a key for `{}`.
ON_A_KEY = {
    "brpop": "{} 0.01",
    "exists": "{}",
    "hdel": "{} field",
    "hset": "{} field value",
    "llen": "{}",
    "sadd": "{} member",
    "set": "{} value",
    "xadd": "{} * report forged",
    "zadd": "{} 1 member",
    "zrem": "{} member",
}
ON_NO_KEY = {"discard", "exec", "multi", "ping"}


def test_a_worker_is_refused_every_command_of_the_server_but_those_on_the_list(acme):
    commands = {row["name"]: row for row in redis_client().command().values()}
    assert len(commands) > 200
    with redis.Redis.from_url(url_of(acme), single_connection_client=True) as client:
        allowed = {name for name in commands.keys() - BEFORE_LOGIN if may_run(client, commands[name], acme)}
    assert allowed == set(WORKER_COMMANDS) == ON_A_KEY.keys() | ON_NO_KEY


def may_run(client, command, pool):
    """Whether a command or one of its subcommands, which servers list since 7.0, is refused for more than its name."""
    for row in [bare(sub) for sub in command.get("subcommands") or ()] or [(command["name"], command["arity"])]:
        words = row[0].split("|")
        try:
            client.execute_command(*words, *[f"{pool.namespace}:key"] * (abs(row[1]) - len(words)))
            if words == ["multi"]:
                client.execute_command("DISCARD")
        except redis.exceptions.NoPermissionError as error:
            if "command" not in str(error):
                return True  # with other keys
        except redis.exceptions.ResponseError as error:
            if "command not allowed" not in str(error):  # to anyone: DEBUG and MODULE, since 7.0
                return True  # with other arguments
        else:
            return True
    return False


def bare(row):
    """The name and arity of a subcommand, which the client leaves as it came."""
    name, arity = (row["name"], row["arity"]) if isinstance(row, dict) else row[:2]
    return name.decode() if isinstance(name, bytes) else name, arity


@pytest.mark.parametrize("name", ON_A_KEY)
def test_a_worker_reaches_no_key_outside_its_namespace(acme, neighbour, worker, name):
    for key in (
        f"{neighbour.namespace}:generate",
        f"{acme.namespace}",
        f"{acme.namespace}-two:generate",
        f"x{acme.namespace}:generate",
        "easel-shared:reports",
        "",
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.execute_command(name, *[word.format(key) for word in ON_A_KEY[name].split(" ")])
    worker.execute_command(name, *ON_A_KEY[name].format(f"{acme.namespace}:{name}").split(" "))


def test_a_worker_reaches_its_keys_in_no_other_database(acme):
    with pytest.raises(redis.exceptions.NoPermissionError):
        redis.Redis.from_url(url_of(acme).removesuffix("/0") + "/1").llen(f"{acme.namespace}:generate")


def test_a_users_password_does_not_log_in_another_user(acme, neighbour):
    stolen = url_of(acme).replace(acme.namespace, neighbour.namespace, 1)
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis.from_url(stolen).ping()


def test_setting_a_user_again_removes_permissions_added_by_hand(acme, neighbour, worker):
    redis_client().execute_command("ACL", "SETUSER", acme.namespace, "allkeys", ">second")
    second = redis.Redis.from_url(url_of(acme).replace(redis_password(acme.namespace, secret=SECRET), "second"))
    assert second.ping()
    second.close()
    redis_user_set(redis_client(), acme, secret=SECRET)
    with pytest.raises(redis.exceptions.NoPermissionError):
        worker.llen(f"{neighbour.namespace}:generate")
    with pytest.raises(redis.exceptions.AuthenticationError):
        second.ping()


def test_a_user_set_again_keeps_a_worker_logged_in(acme):
    with redis.Redis.from_url(url_of(acme), single_connection_client=True) as client:
        before = client.ping() and client.connection._sock
        redis_user_set(redis_client(), acme, secret=SECRET)
        assert client.exists(f"{acme.namespace}:x") == 0
        assert client.connection._sock is before


@pytest.mark.parametrize("namespace", ["", "*", "a*", "a?b", "a[b]", "a b", "a\n", "a:b", "A", "ü", "default"])
def test_a_namespace_with_a_wildcard_or_of_the_platforms_own_user_is_refused(namespace):
    with pytest.raises(NamespaceUnsafe):
        redis_user_set(redis_client(), Pool(namespace=namespace), secret=SECRET)


def test_a_pool_without_a_valid_user_does_not_block_the_others(acme):
    slug = f"odd-{uuid.uuid4().hex[:8]}"
    odd = Pool.objects.create(slug=slug, namespace=f"*{slug}", gpu_class="cpu", created_at=NOW)
    redis_client().execute_command("ACL", "DELUSER", acme.namespace)
    dispatcher._users_set.clear()
    try:
        dispatcher.turn()
    finally:
        odd.delete()
    assert acme.namespace in redis_client().acl_users()
