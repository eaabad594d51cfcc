from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract.errors import Misconfigured
from framegate.endpoint.serial_settings import Rs485, settings_from_query
from framegate.endpoint.url import SCHEMES, EndpointUrl, parse_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://127.0.0.1:5020", EndpointUrl("tcp", "127.0.0.1", 5020)),
        ("TCP://PLC1:502", EndpointUrl("tcp", "plc1", 502)),
        ("tcp://plc_1.site-a.example:502/", EndpointUrl("tcp", "plc_1.site-a.example", 502)),
        ("tls+tcp://broker.example:8883", EndpointUrl("tls+tcp", "broker.example", 8883)),
        ("udp://10.0.0.1:47808", EndpointUrl("udp", "10.0.0.1", 47808)),
        ("tcp://[::1]:502", EndpointUrl("tcp", "::1", 502)),
        ("tcp://127.0.0.1:0", EndpointUrl("tcp", "127.0.0.1", 0)),
        ("memory://bench-1", EndpointUrl("memory", "bench-1")),
        ("serial:///dev/ttyUSB0", EndpointUrl("serial", path="/dev/ttyUSB0")),
        (
            "serial:///dev/ttyUSB0?baud=9600&parity=E&stopbits=2",
            EndpointUrl("serial", path="/dev/ttyUSB0", query={"baud": "9600", "parity": "E", "stopbits": "2"}),
        ),
    ],
)
def test_url_good_text_is_parsed(text: str, expected: EndpointUrl) -> None:
    url = parse_url(text)
    assert url == expected
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "E2001", "no scheme"),
        ("127.0.0.1:502", "E2001", "no scheme"),
        ("tcp://host :502", "E2001", "spaces"),
        ("tcp://host:502\n", "E2001", "control"),
        ("tcp://" + "x" * 3000 + ":1", "E2001", "too long"),
        ("tcp://host:502#top", "E2001", "#"),
        ("tls://host:8883", "E2002", "did you mean tls+tcp?"),
        ("tcpp://host:502", "E2002", "did you mean tcp?"),
        ("rtu:///dev/ttyUSB0", "E2002", "did you mean serial?"),
        ("gopher://host:70", "E2002", "allowed: tcp, tls+tcp, udp, serial, memory"),
        ("tcp://:502", "E2003", "no usable host"),
        ("tcp://ho$t:502", "E2003", "no usable host"),
        ("tcp://fe80::1:502", "E2003", "brackets"),
        ("tcp://[fe80::1:502", "E2003", "brackets"),
        ("tcp://[nonsense]:502", "E2003", "brackets"),
        ("memory://", "E2003", "no usable name"),
        ("tcp://host", "E2004", "no port"),
        ("tcp://host:", "E2004", "no port"),
        ("tcp://host:99999", "E2004", "65535"),
        ("tcp://host:mqtt", "E2004", "not a number"),
        ("tcp://host:502?retry=3", "E2006", 'unknown query key "retry"'),
        ("serial:///dev/ttyS0?baudrate=9600", "E2006", "did you mean baud?"),
        ("serial:///dev/ttyS0?baud", "E2006", "key=value"),
        ("serial:///dev/ttyS0?baud=", "E2006", "without a value"),
        ("serial:///dev/ttyS0?baud=1&baud=2", "E2006", "twice"),
        ("serial:///dev/ttyS0?baud=fast", "E2006", "from 50 to 4000000"),
        ("serial:///dev/ttyS0?parity=X", "E2006", "allowed: N, E, O"),
        ("serial:///dev/ttyS0?bytesize=9", "E2006", "allowed: 8, 7, 6, 5"),
        ("serial:///dev/ttyS0?stopbits=3", "E2006", "allowed: 1, 1.5, 2"),
        ("serial:///dev/ttyS0?pacing=soon", "E2006", "pacing=soon"),
        ("serial:///dev/ttyS0?pacing=2s", "E2006", "longer than 1 s"),
        ("serial:///dev/ttyS0?rs485=maybe", "E2006", "allowed: on, off"),
        ("serial:///dev/ttyS0?rts_on_send=1", "E2006", "rs485=on"),
        ("serial://dev/ttyUSB0?baud=9600", "E2007", "serial:///dev/ttyUSB0"),
        ("serial://", "E2007", "no device path"),
        ("tcp://host:1883/topic", "E2007", "/topic"),
        ("memory://bench/1", "E2007", "a name only"),
    ],
)
def test_url_bad_text_names_part_and_remedy(text: str, code: str, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_url(text)
    assert caught.value.stable_code == code
    assert words in caught.value.text


@pytest.mark.parametrize(
    "text",
    [
        "tcp://user:hunter2@host:502",
        "tls+tcp://hunter2@broker:8883",
        "nonsense://user:hunter2@host:1",
        "user:hunter2@host:502",
        "tcp://user:hunter2/x@host:502",
        "tcp://user:hunter2 @host:502",
        "tcp://host:502?password=hunter2",
    ],
)
def test_url_with_credentials_is_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)
    if text.startswith("tcp://user:hunter2@"):
        assert caught.value.stable_code == "E2005"
        assert "credentials:" in caught.value.text


@given(st.text(max_size=40), st.sampled_from(["", *(f"{scheme}://" for scheme in SCHEMES)]))
def test_url_arbitrary_text_parses_back_or_is_misconfigured(text: str, prefix: str) -> None:
    try:
        url = parse_url(prefix + text)
    except Misconfigured:
        return
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    ("query", "silence_ms"),
    [
        ({"baud": "9600"}, 3.5 * 10 / 9.6),
        ({"baud": "9600", "parity": "E"}, 3.5 * 11 / 9.6),
        ({"baud": "19200", "parity": "E"}, 3.5 * 11 / 19.2),
        ({"baud": "38400"}, 1.75),
        ({"baud": "115200", "stopbits": "2"}, 1.75),
        ({"baud": "115200", "pacing": "5ms"}, 5.0),
    ],
)
def test_silence_follows_baud_and_character_length(query: dict[str, str], silence_ms: float) -> None:
    assert settings_from_query(query).silence_s * 1000 == pytest.approx(silence_ms)


def test_rs485_settings_are_read() -> None:
    settings = settings_from_query(
        {"rs485": "on", "rts_on_send": "0", "rts_after_send": "1", "delay_after_send": "2ms"}
    )
    assert settings.rs485 == Rs485(
        rts_on_send=False, rts_after_send=True, delay_before_send_s=0.0, delay_after_send_s=0.002
    )
