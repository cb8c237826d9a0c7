// libFuzzer's entry: an interpreter with `target.pyx` in it. FUZZ_ENTRY is one of its functions.
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

extern "C" PyObject* PyInit_target(void);
int FUZZ_ENTRY(const unsigned char* data, size_t size);

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    PyImport_AppendInittab("target", PyInit_target);
    Py_Initialize();
    if (PyImport_ImportModule("target") == NULL) {
        PyErr_Print();
        exit(1);
    }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { return FUZZ_ENTRY(data, size); }
