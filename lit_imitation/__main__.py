"""`python -m lit_imitation` runs the command `lit-imitation`."""

from lit_imitation.cli import main

if __name__ == "__main__":
    main()
