"""What RabbitMQ took back when it ended a consumer: the oldest then, each other one when it is as old."""

from ewms.pilot.brokers.rabbitwork import MARGIN_S, InWork


def test_the_oldest_was_taken_back_and_the_others_are_at_the_same_age() -> None:
    work = InWork()
    for tag, came_at in (("a", 0.0), ("b", 5.0), ("c", 5.0), ("d", 20.0)):
        work.took(tag, came_at)
    work.consumer_ended(30.0)
    assert all(work.is_in_doubt(tag) for tag in "abcd")
    assert work.settle("a", 30.0)
    assert not work.settle("b", 35 + MARGIN_S - 0.1)
    assert work.settle("c", 35 + MARGIN_S)
    assert not work.settle("d", 49.0)
    assert not any(tag in work for tag in "abcd")


def test_what_a_later_consumer_gave_is_judged_by_its_own_end() -> None:
    work = InWork()
    work.took("old", 0.0)
    work.consumer_ended(30.0)
    work.took("new", 31.0)
    work.took("newer", 40.0)
    assert not work.is_in_doubt("new")
    work.consumer_ended(61.0)
    assert work.settle("new", 61.0)
    assert not work.settle("newer", 69.0)
    assert work.settle("old", 61.0)


def test_what_was_settled_before_does_not_count() -> None:
    work = InWork()
    work.took("done", 0.0)
    work.took("held", 10.0)
    assert not work.settle("done", 20.0)
    work.consumer_ended(40.0)
    assert work.settle("held", 40.0)


def test_what_was_settled_while_the_broker_took_it_back_may_be_what_ended_the_consumer() -> None:
    work = InWork()
    work.took("late", 0.0)
    work.took("held", 10.0)
    assert not work.settle("late", 39.99)
    work.consumer_ended(40.0)
    assert not work.settle("held", 45.0), "it is taken back at 50"


def test_an_end_without_deliveries_and_a_channel_that_is_gone_leave_nothing() -> None:
    work = InWork()
    work.consumer_ended(1.0)
    work.took("x", 2.0)
    work.consumer_ended(3.0)
    work.forget()
    assert "x" not in work
    assert not work.is_in_doubt("x")
