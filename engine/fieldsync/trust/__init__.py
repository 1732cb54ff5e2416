"""Who is who in an organisation and what they may: keys, statements, grants, and how a device gets them."""
