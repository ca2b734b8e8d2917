"""What tests ask of a page that Streamlit's AppTest has run."""


def healthy(app):
    """The app itself, which raised nothing."""
    assert not app.exception, app.exception[0].message
    return app


def said(app):
    """All that it says, in one line and without Markdown's escapes."""
    texts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.success]
    return " ".join(str(text.value) for text in texts).replace("\\", "")


def named(widgets, label):
    """The first widget with a label."""
    return next(widget for widget in widgets if widget.label == label)


def chosen(app, key, default=""):
    """What the address bar says, or else the default; of what a test has set, AppTest gives back a list."""
    value = app.query_params.get(key, default)
    return value if isinstance(value, str) else value[-1]
