"""What one source may do in a minute."""

from api.throttle import Throttle, source_of


def test_a_bucket_empties_and_fills_evenly() -> None:
    now = [0.0]
    throttle = Throttle(6, lambda: now[0])
    assert [throttle.take("a") for _ in range(7)] == [0, 0, 0, 0, 0, 0, 10]
    assert throttle.take("b") == 0
    now[0] += 9.5
    assert throttle.take("a") == 1
    now[0] += 0.5
    assert throttle.take("a") == 0
    assert throttle.take("a") == 10
    now[0] += 3600
    assert [throttle.take("a") for _ in range(7)] == [0, 0, 0, 0, 0, 0, 10]


def test_memory_is_bounded() -> None:
    throttle = Throttle(1, lambda: 0.0)
    for number in range(25_000):
        throttle.take(str(number))
    assert len(throttle._buckets) == 20_000


def test_a_source_is_an_address_or_a_whole_ipv6_network() -> None:
    assert source_of("192.0.2.1") == "192.0.2.1"
    assert source_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8::1")
    assert source_of(None) == source_of("garbage") == "unknown"
