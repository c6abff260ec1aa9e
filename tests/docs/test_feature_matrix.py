"""The feature matrix is what the code says today."""

from scripts import feature_matrix


def test_the_feature_matrix_is_current() -> None:
    written = feature_matrix.TARGET.read_text(encoding="utf-8")

    assert written == feature_matrix.generate(), "run: python scripts/feature_matrix.py"


def test_every_provider_of_ours_is_in_it() -> None:
    text = feature_matrix.generate()

    assert [name for name in feature_matrix.providers() if f"/{name}.md" not in text] == []
