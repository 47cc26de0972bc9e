"""Write the Data Docs of a batch, in which what users wrote is text and nothing else (no HTML injection).

great-expectations puts values of the data into its pages as they are, and people open these pages in a browser. So the
pages are made from results whose texts were escaped first; what the suite looked at, and what is stored, stays as it
was said.
"""

from __future__ import annotations

import copy
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.data_context import EphemeralDataContext
    from great_expectations.data_context.types.resource_identifiers import ValidationResultIdentifier


def write_docs(
    context: EphemeralDataContext,
    suite: ExpectationSuite,
    name: ValidationResultIdentifier,
    run: ExpectationSuiteValidationResult,
    folder: Path,
) -> None:
    """Write the pages of one run to a folder; the run is left as it is, the context is of no other use afterwards."""
    context.add_data_docs_site(
        "local",
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())},
        },
    )
    context.validation_results_store.set(name, _escaped_run(run))
    for expectation in suite.expectations:
        for field in [field for field in type(expectation).__fields__ if field.startswith("column")]:
            setattr(expectation, field, escaped(getattr(expectation, field)))
    suite.save()
    context.build_data_docs(site_names=["local"], resource_identifiers=[name, name.expectation_suite_identifier])


def escaped(value: Any) -> Any:
    """Make every text in a value harmless in HTML, whatever holds it: lists, mappings and their keys."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {escaped(key): escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(escaped(inner) for inner in value)
    return value


def _escaped_run(run: ExpectationSuiteValidationResult) -> ExpectationSuiteValidationResult:
    safe = copy.deepcopy(run)
    for one in safe.results:
        one.result = escaped(one.result)
        one.exception_info = escaped(one.exception_info)
        # Of its arguments the columns' names alone: great-expectations escapes the others itself.
        kwargs = one.expectation_config.kwargs
        kwargs.update({key: escaped(value) for key, value in kwargs.items() if key.startswith("column")})
    return safe
