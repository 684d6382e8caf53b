"""``efface methods``: the table of methods, and the page of one."""

from efface.methods import METHODS


def test_methods_lists_every_method_with_what_it_needs(efface, capfd):
    """One table, from the same data that the tests hold the methods to."""
    assert efface("methods") == 0
    printed = " ".join(capfd.readouterr().out.split())
    for word in ("zero-shot", "needs", "may use", "labels of", *METHODS):
        assert word in printed


def test_methods_of_one_name_is_its_page(efface, capfd):
    """What it does, its paper, what it needs, and each setting with its default and meaning."""
    assert efface("methods", "ssd") == 0
    printed = " ".join(capfd.readouterr().out.split())
    setting, seed = "selection_weighting 10.0 a number", "seed 0 an integer of at least 0 draws who"
    for word in ("2308.07707", "needs retain", setting, "the paper's α", seed):
        assert word in printed


def test_methods_of_an_unknown_name_says_the_nearest(efface, capfd):
    """A slip of the pen."""
    assert efface("methods", "sdd") == 2
    assert "Did you mean 'ssd'?" in capfd.readouterr().err
