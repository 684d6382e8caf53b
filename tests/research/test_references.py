"""The benchmark of reference models: what they are trained on, and its page."""

from research.benchmarks.references import IMAGES, page, requests
from research.reduce import rows_by


def test_reference_models_are_trained_on_none_of_the_records():
    for request in requests("digits"):
        going = {*rows_by(request.goal.forget, range(request.images))}
        for images in IMAGES["digits"]:
            seen = rows_by(request.reference(images).settings["trained_on"], range(request.images))
            assert len(seen) == images
            assert not going & {*seen}
    jobs = [job for _, _, job in request.cells()]
    assert len({job.id for job in jobs}) == 2 * (1 + len(IMAGES["digits"]))
    assert not any(job.settings["retain"] for job in jobs)


def test_the_page_has_a_row_for_each_kind_of_reference_that_was_measured():
    ks = {"label": 0.1, "unseen": 0.05}
    cell = {"data": "digits", "accuracy": 0.9, "rank": 0.5, "gap": 0.02, "floor": 0.01, "ks": ks}
    cell |= {"untouched": 0.3, "ks_retrained": ks, "unseen": [0.9, 0.89]}
    kinds = [(None, True), (None, True), (60, True), (60, False)]
    cells = [{**cell, "images": images, "holdout": holdout} for images, holdout in kinds]
    cells[1] = {**cells[1], "gap": 0.04}
    text = page({"command": "references", "date": "2026-11-30", "cells": cells})
    assert "| copies | 90.0 (90.0 to 90.0) | 0.50 (0.50 to 0.50) | 3.0 (2.0 to 4.0) |" in text
    assert text.count("| a reference model of 60 images |") == 2
    assert "gap 1.0 (1.0 to 1.0), KS 0.10" in text
