"""The rows of differences.yaml, read once, and every case that they may speak of."""

from __future__ import annotations

from pathlib import Path

import differences
import java_access_cases
import java_fault_cases
import java_key_cases
import java_token_cases
import raw_access_cases
import raw_eek_cases
import raw_http_cases
import raw_kerberos_cases
import raw_key_cases
import raw_token_cases
from wire import cases_of

ROWS = differences.load_rows(Path(__file__).with_name("differences.yaml"))
RAW_CASES = {
    name: case
    for module in (raw_key_cases, raw_eek_cases, raw_http_cases, raw_access_cases, raw_token_cases)
    for name, case in cases_of(module).items()
}
KERBEROS_CASES = cases_of(raw_kerberos_cases)
JAVA_CASES = {
    name: case
    for module in (java_key_cases, java_token_cases, java_access_cases, java_fault_cases)
    for name, case in cases_of(module).items()
}
