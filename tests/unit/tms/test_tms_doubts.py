from ewms.tms.doubts import Doubts


def test_what_was_given_up_is_told_once_more_after_the_settle_time() -> None:
    doubts = Doubts()
    doubts.add(["a", "b"], now=10)
    doubts.add(["b", "c"], now=40)  # the later one counts
    assert "a" in doubts
    assert "d" not in doubts
    assert doubts.settled(69, settle_time=60) == []
    assert doubts.settled(70, settle_time=60) == ["a"]
    assert "a" not in doubts
    assert "b" in doubts
    assert doubts.settled(500, settle_time=60) == ["b", "c"]
    assert doubts.settled(900, settle_time=60) == []


def test_without_a_settle_time_the_next_round_tells_it() -> None:
    doubts = Doubts()
    doubts.add({"a"}, now=10)
    assert doubts.settled(10, settle_time=0) == ["a"]
