"""Where key records rest and what protects them."""
