"""Which tests are slow: `make test` leaves them to `make test-slow`, CI runs both."""

import pytest

SLOW = (
    "[triton",
    "tests/contract/test_openvino_bundled_model.py",
    "tests/contract/test_rate_limits.py",
    "tests/contract/test_redis_shapes.py",
    "tests/deploy/",
    "tests/end_to_end/abuse/",
    "tests/end_to_end/test_abuse_access.py",
    "tests/end_to_end/test_client.py",
    "tests/end_to_end/test_drill.py",
    "tests/end_to_end/test_evaluate.py",
    "tests/end_to_end/test_label_studio_real.py",
    "tests/end_to_end/test_production.py",
    "tests/end_to_end/test_rebinding.py",
    "tests/end_to_end/test_sentinel_failover.py",
    "tests/end_to_end/test_tls.py",
    "tests/end_to_end/test_triton_",
    "tests/end_to_end/web_page/test_appearance.py",
    "tests/end_to_end/web_page/test_same_answers.py",
    "tests/export/test_baseline_",
    "tests/export/test_command_line.py",
    "tests/export/test_compare_stores.py",
    "tests/export/test_full_size",
    "tests/export/test_nano_",
    "tests/export/test_openvino.py",
    "tests/export/test_precision.py",
)
"""Whole stacks that lose parts, other shapes of one, trained and full-size networks, what `make check-deploy` runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them by where they are: what a test costs follows from what its module starts."""
    for item in items:
        if any(part in item.nodeid for part in SLOW):
            item.add_marker(pytest.mark.slow)
