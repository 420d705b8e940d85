"""The roles that people have. One is signed in with one of them."""

from enum import StrEnum


class Role(StrEnum):
    OPERATOR = "operator"  # asks for authorizations, searches and looks under them
    SUPERVISOR = "supervisor"  # approves what others ask for; looks under authorizations
    AUDITOR = "auditor"  # reads the audit
    ENGINEER = "engineer"  # models, cameras, the city
    ADMINISTRATOR = "administrator"  # accounts and their roles
