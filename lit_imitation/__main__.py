"""`python -m lit_imitation`, the same as the command `lit-imitation`."""

from lit_imitation.cli import main

if __name__ == "__main__":
    main()
