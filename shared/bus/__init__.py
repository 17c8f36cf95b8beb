"""The bus brings: publish durably, hand over, acknowledge. It is not where work waits."""
