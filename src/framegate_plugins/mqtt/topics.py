"""Topic names and topic filters: what is valid, and which filter matches which name.

Pure. Names are compared level by level; `$`-topics are hidden from filters that begin with a wildcard.

Source: MQTT Version 5.0, 4.7 and 4.8.2 (shared subscriptions).
"""

from __future__ import annotations

SHARE_PREFIX = "$share/"


def is_topic_name(topic: str) -> bool:
    """Whether a message may carry this topic: not empty, no wildcard, no U+0000."""
    return bool(topic) and not any(sign in topic for sign in "+#\0")


def is_topic_filter(topic_filter: str) -> bool:
    """Whether somebody may subscribe to this: `+` stands alone in its level, `#` alone in the last one."""
    if topic_filter.startswith(SHARE_PREFIX):
        group, _, topic_filter = topic_filter.removeprefix(SHARE_PREFIX).partition("/")
        if not is_topic_name(group):
            return False
    if not topic_filter or "\0" in topic_filter:
        return False
    levels = topic_filter.split("/")
    return all(level in {"+", "#"} or not set("+#") & set(level) for level in levels) and "#" not in levels[:-1]


def split_share(topic_filter: str) -> tuple[str, str]:
    """Group ("" = not shared) and the filter proper."""
    if not topic_filter.startswith(SHARE_PREFIX):
        return "", topic_filter
    group, _, rest = topic_filter.removeprefix(SHARE_PREFIX).partition("/")
    return group, rest


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter (without its share group) takes in a topic."""
    if topic.startswith("$") and topic_filter[:1] in {"+", "#"}:
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":  # also matches the parent itself: sport/# takes sport
            return True
        if index == len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)
