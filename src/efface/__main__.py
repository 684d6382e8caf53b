"""``python -m efface`` is ``efface``; ``accelerate launch -m efface`` needs it."""

from efface.cli import main

if __name__ == "__main__":
    main()
