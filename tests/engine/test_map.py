"""`map` of the schedulers: tasks that share a value, here and on a cluster that loses workers."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from dgmm.engine.client import DistributedScheduler
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import ClusterError, IllDefinedCovariance

TASKS = 6  # no more than the threads of each worker of the cluster: none waits behind another


def add(shared, argument):
    return shared + argument


def touch(folder, number):
    """Leaves a file for every time that it runs."""
    (Path(folder) / f"{number}-{os.getpid()}-{threading.get_ident()}-{os.urandom(4).hex()}").touch()
    return number


def touch_unless_negative(folder, number):
    if number < 0:
        msg = "component 3 has an ill-defined covariance"
        raise IllDefinedCovariance(msg)
    return touch(folder, number)


def wait_for(folder, number):
    """The first task ends at once, the others when there is a file of the name `go`."""
    touch(folder, number)
    while number and not (Path(folder) / "go").exists():
        threading.Event().wait(0.01)
    return number


def fail_or_wait(folder, number):
    if number == 0:
        msg = "component 3 has an ill-defined covariance"
        raise IllDefinedCovariance(msg)
    return wait_for(folder, number)


def die_once(folder, number):
    """The first time, the last task kills its worker when it is told to."""
    touch(folder, number)
    died = Path(folder) / "died"
    if number == TASKS - 1 and not died.exists():
        while not (Path(folder) / "go").exists():
            threading.Event().wait(0.01)
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(_shared, _number):
    os.kill(os.getpid(), signal.SIGKILL)


def runs(folder, number):
    return len(list(Path(folder).glob(f"{number}-*")))


# --- in this process -----------------------------------------------------------------------------------------

LOCAL = [("synchronous", None), ("threads", 1), ("threads", 2), ("threads", 5)]
local = pytest.mark.parametrize(("name", "workers"), LOCAL)


@local
def test_values_come_with_their_numbers(name, workers):
    with dask.config.set(scheduler=name, num_workers=workers):
        scheduler = LocalScheduler()
        assert scheduler.n_threads == (workers or 1)
        assert sorted(scheduler.map(add, 10, range(7))) == [(i, 10 + i) for i in range(7)]
        assert list(scheduler.map(add, 10, [])) == []


@local
def test_values_come_while_others_are_still_to_be_computed(tmp_path, name, workers):
    with dask.config.set(scheduler=name, num_workers=workers):
        values = LocalScheduler().map(wait_for, str(tmp_path), range(12))
        assert next(values) == (0, 0)
        (tmp_path / "go").touch()
        assert sorted(values) == [(i, i) for i in range(1, 12)]


@local
def test_an_error_comes_out_as_it_is_and_ends_the_rest(tmp_path, name, workers):
    arguments = [1, 2, 3, 4, 5, -1, *range(10, 30)]
    got = []
    with dask.config.set(scheduler=name, num_workers=workers):  # noqa: SIM117
        with pytest.raises(IllDefinedCovariance, match="component 3 has an ill-defined covariance") as caught:
            got.extend(LocalScheduler().map(touch_unless_negative, str(tmp_path), arguments))
    assert type(caught.value) is IllDefinedCovariance
    assert all(arguments[i] == value for i, value in got)
    assert runs(tmp_path, 29) == 0


@pytest.mark.parametrize("how", ["failed", "left"])
def test_nothing_runs_any_more_once_the_map_is_over(tmp_path, how):
    with dask.config.set(scheduler="threads", num_workers=2):
        values = LocalScheduler().map(fail_or_outlast, str(tmp_path), [1 if how == "left" else 0, 2, *range(3, 9)])
        if how == "failed":
            with pytest.raises(IllDefinedCovariance):
                next(values)
        else:
            next(values)
            values.close()
    begun = {path.name for path in tmp_path.glob("begun-*")}
    assert begun == {path.name.replace("ended", "begun") for path in tmp_path.glob("ended-*")}
    assert "begun-8" not in begun


def test_a_scheduler_keeps_its_threads_and_they_end_with_it():
    with dask.config.set(scheduler="threads", num_workers=2):
        scheduler = LocalScheduler()
        idents = [ident for _ in range(3) for _, ident in scheduler.map(ident_of_thread, None, range(20))]
        ours = [thread for thread in threading.enumerate() if thread.ident in set(idents)]
    assert 1 <= len(ours) <= 2
    del scheduler
    for thread in ours:
        thread.join(60)
        assert not thread.is_alive()


def ident_of_thread(_shared, _number):
    return threading.get_ident()


def test_after_an_interrupt_a_scheduler_does_not_wait_for_what_still_runs(tmp_path):
    with dask.config.set(scheduler="threads", num_workers=2):
        scheduler = LocalScheduler()
        values = scheduler.map(wait_for, str(tmp_path), range(TASKS))
        assert next(values) == (0, 0)
        with pytest.raises(KeyboardInterrupt):
            values.throw(KeyboardInterrupt)
        assert dict(scheduler.map(add, 10, range(20))) == {i: 10 + i for i in range(20)}
        (tmp_path / "go").touch()


def fail_or_outlast(folder, number):
    """The first task ends once the second has begun; the second, when the first is long over."""
    folder = Path(folder)
    (folder / f"begun-{number}").touch()
    if number < 2:
        while not (folder / "begun-2").exists():
            threading.Event().wait(0.001)
        (folder / f"ended-{number}").touch()
        if number == 0:
            msg = "component 3 has an ill-defined covariance"
            raise IllDefinedCovariance(msg)
        return number
    threading.Event().wait(0.3)
    (folder / f"ended-{number}").touch()
    return number


@pytest.mark.parametrize("argument", [[1, 2], (1, 2), "text", None, {"a": [1]}], ids=str)
def test_arguments_arrive_as_they_are(argument):
    (found,) = LocalScheduler().map(pair, "shared", [argument])
    assert found == (0, ("shared", argument))
    assert type(found[1][1]) is type(argument)


def pair(shared, argument):
    return shared, argument


# --- on a cluster --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 30}),
        LocalCluster(2, threads_per_worker=TASKS, dashboard_address=":0") as cluster,
        Client(cluster) as found,
    ):
        yield found


def test_a_cluster_gives_values_with_their_numbers(client):
    scheduler = DistributedScheduler(client)
    assert sorted(scheduler.map(add, 10, range(7))) == [(i, 10 + i) for i in range(7)]
    assert list(scheduler.map(add, 10, [])) == []
    arguments = [[1, 2], (1, 2), "text", None]
    assert [value[1] for _, value in sorted(scheduler.map(pair, 0, arguments))] == arguments


def test_a_cluster_gives_values_as_they_come(client, tmp_path):
    values = DistributedScheduler(client).map(wait_for, str(tmp_path), range(TASKS))
    assert next(values) == (0, 0)
    (tmp_path / "go").touch()
    assert sorted(values) == [(i, i) for i in range(1, TASKS)]
    assert all(runs(tmp_path, i) == 1 for i in range(TASKS))


MANY = 10 * TASKS


def test_an_error_on_a_cluster_comes_out_as_it_is_and_cancels_the_rest(client, tmp_path):
    values = DistributedScheduler(client).map(fail_or_wait, str(tmp_path), range(MANY))
    with pytest.raises(IllDefinedCovariance, match="component 3 has an ill-defined covariance") as caught:
        next(values)
    assert type(caught.value) is IllDefinedCovariance
    assert_little_was_begun(client, tmp_path)


def test_who_stops_listening_cancels_the_rest(client, tmp_path):
    values = DistributedScheduler(client).map(wait_for, str(tmp_path), range(MANY))
    assert next(values) == (0, 0)
    values.close()
    assert_little_was_begun(client, tmp_path)


def assert_little_was_begun(client, folder):
    """Tasks that ran when the map ended come to their end; the others never begin."""
    until(lambda: not any("dgmm-" in key for key in client.run_on_scheduler(waiting_keys)))
    (folder / "go").touch()
    until(lambda: not any(client.processing().values()))
    assert len(list(folder.glob("*-*"))) <= 2 * TASKS + 1


def until(true):
    for _ in range(1000):
        if true():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never came true")


def waiting_keys(dask_scheduler):
    states = ("waiting", "queued", "processing")
    return [str(key) for key, task in dask_scheduler.tasks.items() if task.state in states]


def test_a_killed_worker_loses_no_value_and_nothing_that_was_yielded_is_computed_again(client, tmp_path):
    values = DistributedScheduler(client).map(die_once, str(tmp_path), range(TASKS))
    got = [next(values) for _ in range(TASKS - 1)]
    (tmp_path / "go").touch()
    got += values
    assert sorted(got) == [(i, i) for i in range(TASKS)]
    assert (tmp_path / "died").exists()
    assert [runs(tmp_path, number) for number in range(TASKS)] == [1] * (TASKS - 1) + [2]


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_given_up(tmp_path):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(ClusterError, match="the task dgmm-die-0 ends every worker"),
    ):
        list(DistributedScheduler(client).map(die, 0, [0]))
