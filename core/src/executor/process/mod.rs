//! Jobs as isolated processes of the worker's machine.
