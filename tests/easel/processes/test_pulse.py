import threading

from easel.processes.pulse import Pulse


def test_a_loop_that_turns_touches_the_file_and_one_that_hangs_does_not(tmp_path):
    stop, turned, go_on = Pulse(tmp_path / "alive"), threading.Event(), threading.Event()

    def loop():
        while not stop.is_set():
            turned.set()
            go_on.wait()

    thread = threading.Thread(target=loop)
    thread.start()
    turned.wait()
    stop.set()
    (tmp_path / "alive").unlink()  # and while it hangs nobody makes it again
    assert not (tmp_path / "alive").exists()
    go_on.set()
    thread.join()
    assert (tmp_path / "alive").exists()
