"""No row of the reliability catalogue is forgotten: each has a case, by the name it has there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from catalogue import FAULTS
from says import DIALECTS

TESTS = Path(__file__).resolve().parents[1]
PAPER = TESTS.parents[1] / "shared" / "research" / "reliability.md"

#: The wire faults, as the catalogue has them.
WIRE = """
split-utf8 eol-mixed bom bom-split empty-events unicode-separators data-after-done done-then-hang
finish-then-hang cut-mid-stream reset-mid-stream clean-end-no-finish done-without-finish
close-delimited-cut half-event half-event-blank whole-event-no-blank length-short bad-chunk-size
half-close empty-body cut-before-event cut-before-event-once cut-in-tool-args error-mid-stream
error-first error-first-once error-named-event error-string error-beside-choices error-unframed
error-plain-text json-error-200 json-whole-200 html-200 status-204 retry-after-inf
retry-after-overflow retry-after-huge http-429-quota http-401-echo http-400-flood http-400-stall
redirect-other-origin redirect-get stall-before-head stall-before-event stall-mid-stream
stall-mid-event drip-comments drip-bytes endless line-unbounded event-unbounded body-unbounded
many-deltas gzip-bomb gzip-corrupt gzip-lie head-many json-deep choices-empty choices-null
choices-missing delta-null delta-missing not-an-object index-as-string big-int nul-raw bad-utf8
lone-surrogate finish-length finish-filter two-choices bare-chunks no-message-start
delta-for-no-block tool-no-index tool-no-index-fragments tool-same-index tool-index-gap
tool-repeated-id tool-bad-json tool-nan-args tool-array-args tool-two-objects tool-empty-args
tool-object-args block-bad-json junk-after-reply two-framings ok one-byte-writes one-write eol-crlf
eol-cr eol-crlf-split comments comment-flood no-space two-spaces multi-line-data unknown-fields
field-without-colon no-last-blank-line named-events done-tight done-twice done-missing
message-stop-missing close-delimited with-length early-hints cut-before-head cut-before-head-once
reset-before-head-once cut-in-head-once wrong-type no-type http-503-once http-500-once http-529-once
http-408-once http-409-once http-429-once retry-after-seconds retry-after-fraction retry-after-ms
retry-after-date retry-after-past retry-after-zero retry-after-garbage retry-after-negative
retry-after-nan retry-after-baddate http-429-always http-503-always http-504-always should-retry-no
should-retry-yes http-400 http-401 http-403 http-404 http-413 http-422 http-502-html-once
http-500-empty http-500-bad-json http-400-odd-shape early-413 redirect-same-origin redirect-loop
redirect-file stall-before-head-once slow-but-fine event-10-mib event-1-mib-small-reads gzip
head-huge content-null tool-calls-null unknown-keys reasoning usage-null nan nul-escaped usage-last
usage-running finish-with-content finish-twice finish-unknown unknown-event unknown-delta pings
tool-plain tool-one-chunk tool-parallel tool-no-id tool-empty-id tool-stop-reason tool-odd-name
block-plain block-interleaved block-empty-args close-after-reply reset-after-reply stale-keep-alive
connection-close not-http
""".split()

#: Those that have another name here.
RENAMED = {
    "http-429-always": "http-429",
    "http-503-always": "http-503",
    "http-504-always": "http-504",
    "message-stop-missing": "done-missing",
}

#: Those that are more than an answer to a request, what life does to a client, and security: the
#: tests of each.
ELSEWHERE = {
    "http-401-echo": "net/test_faults.py::test_an_echoed_key_is_nowhere",
    "redirect-other-origin": "net/test_faults.py::test_a_redirect_reaches_nobody",
}
LIFE = {
    "L1": "net/test_life_cycle.py::test_twenty_streams_left_and_kept",
    "L2": "net/test_life_cycle.py::test_a_stream_that_is_dropped_says_so",
    "L3": "net/test_life_cycle.py::test_cancelled_in_the_middle_again_and_again",
    "L4": "net/test_life_cycle.py::test_cancelled_while_they_wait",
    "L5": "net/test_transport.py::test_twenty_refusals_at_once",
    "L6": "test_calls.py::test_one_model_in_one_loop_after_the_other",
    "L7": "test_calls.py::test_one_model_in_four_loops_at_once",
    "L8": "test_calls.py::test_fork",
    "L9": "test_calls.py::test_sync_inside_a_running_loop",
    "L10": "test_calls.py::test_ctrl_c",
    "L11": "net/test_transport.py::test_a_consumer_that_will_not_go",
    "L12": "test_calls.py::test_a_program_that_ends_in_the_middle",
    "L13": "net/test_clients.py::test_the_kernel_watches_idle_connections",
    "L14": "net/test_life_cycle.py::test_a_thousand_streams_on_one_connection",
}
SECURITY = {
    1: "test_keys_are_in_no_text_of_a_model",
    2: "test_keys_are_in_no_error",
    3: "test_keys_are_in_no_pickle",
    4: "test_keys_and_messages_are_in_no_log",
    5: "test_keys_are_in_no_url",
    6: "test_keys_that_no_header_can_carry",
    7: "test_names_stay_in_their_segment_of_the_path",
    8: "test_redirects_are_refused",
    9: "test_a_forged_answer_answers_nothing",
    10: "test_the_environment_gives_a_proxy_and_nothing_else",
    11: "test_tls_checks_certificates",
    12: "test_plain_http_warns",
    13: "test_media_addresses_are_passed_on",
    14: "test_a_key_goes_to_its_own_address_only",
    15: "test_damaged_arguments_are_never_run",
    16: "test_history_makes_messages_and_nothing_else",
    17: "test_packed_answers_are_bounded",
    18: "test_every_limit_has_its_error",
    19: "test_the_http_stack_is_new_enough",
    20: "test_what_a_wheel_brings",
    21: "test_servers_are_for_this_machine_only",
    22: "test_error_text_is_bounded",
}


def test_every_wire_fault_has_a_row() -> None:
    """In at least one dialect; and what it is about in none other is said on the row."""
    missing = [name for name in WIRE if RENAMED.get(name, name) not in {*FAULTS, *ELSEWHERE}]
    assert not missing
    assert len(WIRE) == len(set(WIRE)) == 191
    for fault in FAULTS.values():
        assert fault.dialects
        assert set(fault.dialects) <= set(DIALECTS)


@pytest.mark.parametrize("row", [*ELSEWHERE, *LIFE])
def test_every_other_row_has_a_test(row: str) -> None:
    """The test that the table names is there."""
    file, _, name = {**ELSEWHERE, **LIFE}[row].partition("::")
    assert re.search(rf"def {name}\(", (TESTS / file).read_text(encoding="utf-8"))


def test_every_row_of_security_has_a_test() -> None:
    """All in one file, in the order of the catalogue."""
    text = (TESTS / "test_security.py").read_text(encoding="utf-8")
    places = [text.find(f"def {name}(") for name in SECURITY.values()]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.skipif(not PAPER.exists(), reason="the catalogue is not on this machine")
def test_the_tables_are_those_of_the_catalogue() -> None:
    """What has been added to the paper is to be added here."""
    text = PAPER.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| (?:\d+ \| )?`([a-z0-9-]+)` \|", text, re.M)) == set(WIRE)
    assert re.findall(r"^\| (L\d+) \|", text, re.M) == list(LIFE)
    rows = text.partition("## 3. Security")[2].partition("\n## ")[0]
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", rows, re.M)] == list(SECURITY)
