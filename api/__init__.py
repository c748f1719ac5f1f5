"""The resident's archive: what an administrator enters, what clinicians read; REST."""
