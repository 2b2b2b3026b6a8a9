from easel_local.status import StackStatus


def test_names_and_process_ids_stand_in_columns_of_their_own_however_long_a_name_is():
    processes = {"api": 7, "worker-shared-pool": 20612, "redis": None}
    text = StackStatus(url="http://127.0.0.1:8000", ready=True, processes=processes).as_text()
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["api", "7"],
        ["worker-shared-pool", "20612"],
        ["redis", "not", "running"],
    ]
