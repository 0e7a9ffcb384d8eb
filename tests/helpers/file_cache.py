"""An LLM cache in a file, as two processes may share it."""

import sqlite3

from langchain_core.caches import BaseCache
from langchain_core.load import dumps, loads


class FileCache(BaseCache):
    """Entries in a SQLite file."""

    def __init__(self, path):
        self.path = str(path)
        self._do("CREATE TABLE IF NOT EXISTS entries (prompt TEXT, llm TEXT, value TEXT, PRIMARY KEY (prompt, llm))")

    def lookup(self, prompt, llm_string):
        found = self._do("SELECT value FROM entries WHERE prompt = ? AND llm = ?", prompt, llm_string)
        return loads(found[0][0], allowed_objects="core") if found else None

    def update(self, prompt, llm_string, return_val):
        self._do("REPLACE INTO entries VALUES (?, ?, ?)", prompt, llm_string, dumps(return_val))

    def clear(self, **kwargs):
        self._do("DELETE FROM entries")

    def _do(self, statement, *values):
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()
