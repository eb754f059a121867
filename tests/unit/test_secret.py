"""What is hidden, for how long, and what that costs a service that sees many tokens."""

import json
import threading

from ewms.secret import Secret, forget, redact, register


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    secret = Secret("s3cr3t-token")
    assert redact("amqp://u:s3cr3t-token@host s3cr3t-token") == "amqp://u:***@host ***"
    assert "s3cr3t" not in f"{secret} {secret!r}"


def test_a_secret_is_hidden_in_json_too() -> None:
    secret = Secret('with "quotes", a \\ and an ü')
    assert redact(json.dumps({"error": f"refused {secret.reveal()}"})) == '{"error": "refused ***"}'


def test_nothing_is_left_of_a_secret_that_begins_with_another() -> None:
    secrets = [Secret("tok-abcdef"), Secret("tok-abcdef-and-the-rest"), Secret("tok-abcdef-and")]
    assert redact("x tok-abcdef-and-the-rest x") == "x *** x"
    assert len(secrets) == 3


def test_it_stays_hidden_for_a_while_after_the_last_of_it_is_gone() -> None:
    first, second = Secret("token-of-two-holders"), Secret("token-of-two-holders")
    del first
    Secret("token-that-nobody-keeps")
    assert redact("token-of-two-holders token-that-nobody-keeps") == "*** ***"
    del second
    assert redact("token-of-two-holders") == "***"


def test_thousands_of_tokens_that_came_and_went_are_not_looked_for_for_ever() -> None:
    kept = Secret("the-client-secret")
    for number in range(1000):
        Secret(f"token-of-taskforce-{number:04}-")
    line = " ".join(f"token-of-taskforce-{number:04}-" for number in range(1000))
    assert 0 < redact(line).split().count("***") <= 200
    assert redact("the-client-secret") == "***"
    assert kept


def test_what_is_forgotten_is_shown_unless_a_secret_holds_it() -> None:
    register("short-lived-token")
    register("short-lived-token")
    assert redact("short-lived-token") == "***"
    forget("short-lived-token")
    forget("short-lived-token")
    assert redact("short-lived-token") == "short-lived-token"
    secret = Secret("short-lived-token")
    register("short-lived-token")
    forget("short-lived-token")
    assert redact("short-lived-token") == "***"
    assert secret


def test_short_texts_do_not_blank_out_words() -> None:
    assert Secret("guest")
    assert redact("a guest came") == "a guest came"


def test_threads_may_log_while_tokens_come_and_go() -> None:
    failures: list[BaseException] = []
    stop = threading.Event()

    def log_lines() -> None:
        try:
            while not stop.is_set():
                redact("a line without any token in it")
        except RuntimeError as error:
            failures.append(error)

    threads = [threading.Thread(target=log_lines) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(500):
        Secret(f"coming-and-going-{number}")
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
