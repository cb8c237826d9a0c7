# The Arrow C data interface: structures that others have filled, ours to release (Arrow specification, "The Arrow C
# data interface", "The Arrow C stream interface", "The Arrow PyCapsule interface").

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid

arrow_failures = arrow_types = None   # imported with the first table, since most programs never have one

cdef struct ArrowSchema
cdef struct ArrowArray
cdef struct ArrowArrayStream

# Names, types and order of the members are the specification's.
cdef struct ArrowSchema:
    const char* format
    const char* name
    const char* metadata
    int64_t flags
    int64_t n_children
    ArrowSchema** children
    ArrowSchema* dictionary
    void (*release)(ArrowSchema*) noexcept nogil
    void* private_data

cdef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void** buffers
    ArrowArray** children
    ArrowArray* dictionary
    void (*release)(ArrowArray*) noexcept nogil
    void* private_data

cdef struct ArrowArrayStream:
    int (*get_schema)(ArrowArrayStream*, ArrowSchema*) noexcept nogil
    int (*get_next)(ArrowArrayStream*, ArrowArray*) noexcept nogil
    const char* (*get_last_error)(ArrowArrayStream*) noexcept nogil
    void (*release)(ArrowArrayStream*) noexcept nogil
    void* private_data


@cython.final
cdef class ArrowTable:
    """What `data` has given: its schema and all its batches, moved here, and released once, whatever happens.

    Whoever made them runs without the interpreter: a query may be computed by threads that need it."""
    cdef ArrowArrayStream stream
    cdef ArrowSchema schema
    cdef vector[ArrowArray] batches
    cdef Py_ssize_t count        # records

    def __cinit__(self):
        memset(&self.stream, 0, sizeof(ArrowArrayStream))
        memset(&self.schema, 0, sizeof(ArrowSchema))
        self.count = 0

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        """Does nothing the second time."""
        with nogil:
            while not self.batches.empty():
                if self.batches.back().release != NULL:
                    self.batches.back().release(&self.batches.back())
                self.batches.pop_back()
            if self.schema.release != NULL:
                self.schema.release(&self.schema)
                self.schema.release = NULL
            if self.stream.release != NULL:
                self.stream.release(&self.stream)
                self.stream.release = NULL

    cdef int open(self, data) except -1:
        """Take the schema, and what comes with it."""
        global arrow_failures, arrow_types
        if arrow_types is None:
            from fastprod import arrow_failures, arrow_types
        if hasattr(data, "__arrow_c_stream__"):
            self.open_stream(data.__arrow_c_stream__())
        elif hasattr(data, "__arrow_c_array__"):
            self.open_array(data.__arrow_c_array__())
        else:
            raise arrow_failures.not_arrow(data)
        return 0

    cdef int open_stream(self, capsule) except -1:
        cdef ArrowArrayStream* given
        cdef bint used
        cdef int code
        if not PyCapsule_IsValid(capsule, "arrow_array_stream"):
            raise arrow_failures.not_capsules("__arrow_c_stream__", "a capsule of an arrow_array_stream", capsule)
        given = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
        with cython.critical_section(capsule):   # two threads may have the same one
            used = given.release == NULL
            if not used:
                self.stream = given[0]
                given.release = NULL
        if used:
            raise arrow_failures.used_before("arrow_array_stream")
        with nogil:
            code = self.stream.get_schema(&self.stream, &self.schema)
        if code:
            self.schema.release = NULL   # it is not ours, whatever it looks like
            raise self.stream_failure("its schema", code)
        return 0

    cdef int open_array(self, pair) except -1:
        cdef ArrowSchema* schema
        cdef ArrowArray* array
        cdef bint schema_used, array_used
        if (type(pair) is not tuple or len(pair) != 2 or not PyCapsule_IsValid(pair[0], "arrow_schema")
                or not PyCapsule_IsValid(pair[1], "arrow_array")):
            wanted = "a tuple of capsules of an arrow_schema and an arrow_array"
            raise arrow_failures.not_capsules("__arrow_c_array__", wanted, pair)
        schema = <ArrowSchema*>PyCapsule_GetPointer(pair[0], "arrow_schema")
        array = <ArrowArray*>PyCapsule_GetPointer(pair[1], "arrow_array")
        self.batches.reserve(1)
        with cython.critical_section(pair[0], pair[1]):
            schema_used = schema.release == NULL
            array_used = array.release == NULL
            if not schema_used and not array_used:
                self.schema = schema[0]
                schema.release = NULL
                self.batches.push_back(array[0])
                array.release = NULL
        if schema_used:
            raise arrow_failures.used_before("arrow_schema")
        if array_used:
            raise arrow_failures.used_before("arrow_array")
        return 0

    cdef object stream_failure(self, str doing, int code):
        cdef const char* told = self.stream.get_last_error(&self.stream)
        text = "" if told == NULL else told[:strlen(told)].decode("utf-8", "replace")
        return arrow_failures.stream_failed(doing, code, text)

    cdef int read_all(self) except -1:
        """Take the batches, and count the records."""
        cdef ArrowArray batch
        cdef size_t i
        cdef int code
        while self.stream.release != NULL:
            self.batches.reserve(self.batches.size() + 1 if self.batches.size() < self.batches.capacity()
                                 else 2 * self.batches.size() + 1)
            memset(&batch, 0, sizeof(ArrowArray))
            with nogil:
                code = self.stream.get_next(&self.stream, &batch)
            if code:
                raise self.stream_failure(f"record batch {self.batches.size()}", code)
            if batch.release == NULL:
                break
            self.batches.push_back(batch)
            PyErr_CheckSignals()
        for i in range(self.batches.size()):
            check_batch(&self.batches[i], self.schema.n_children)
            if self.batches[i].length > arrow_failures.MAX_RECORDS - self.count:
                raise arrow_failures.too_many_records()
            self.count += self.batches[i].length
        return 0

    cdef object table(self):
        """The schema, as `arrow_types.Field`s."""
        return field_of(&self.schema, arrow_types.DEPTH)


cdef int check_batch(ArrowArray* batch, int64_t columns) except -1:
    """What the batches themselves, without their columns, must be."""
    check_array(batch, "data", "struct", 1, columns, 0)
    return 0


cdef int check_array(ArrowArray* array, what, type_name, int64_t buffers, int64_t children, int64_t width) except -1:
    """That what an array says of itself can be: all that comes after counts on it. `width`: bytes an item has;
    `buffers`: how many, negative: at least.

    How long the buffers are is not told by the interface: a length or an offset that is not true is not seen."""
    cdef int64_t room = INT64_MAX // max(width, <int64_t>1) - 1
    how = None
    if array.release == NULL:
        how = "it was released"
    elif array.length < 0 or array.offset < 0 or array.null_count < -1:
        how = f"length {array.length}, offset {array.offset}, null_count {array.null_count}"
    elif array.null_count > array.length:
        how = f"null_count {array.null_count} of {array.length}"
    elif array.length > room or array.offset > room - array.length:
        how = f"no memory is large enough for length {array.length} at offset {array.offset}"
    elif array.n_buffers != buffers and not (buffers < 0 and -buffers <= array.n_buffers <= INT32_MAX):
        how = f"{array.n_buffers} buffers instead of {abs(buffers)}"
    elif array.n_children != children:
        how = f"{array.n_children} children instead of {children}"
    elif (buffers and array.buffers == NULL) or (children and array.children == NULL):
        how = "its buffers or children are missing"
    elif buffers and array.null_count > 0 and array.buffers[0] == NULL:
        how = f"null_count {array.null_count} without a validity bitmap"
    if how is not None:
        raise arrow_failures.broken(what, type_name, how)
    return 0


cdef ArrowArray* child_of(ArrowArray* array, int64_t place, int64_t least, what, type_name) except NULL:
    """A child that has at least so many items."""
    cdef ArrowArray* child = array.children[place]
    if child == NULL:
        raise arrow_failures.broken(what, type_name, "it is missing")
    if child.length < least:
        raise arrow_failures.broken(what, type_name, f"length {child.length}, and {least} are needed")
    return child


cdef inline bint is_null(const unsigned char* valid, int64_t index) noexcept nogil:
    return valid != NULL and not valid[index >> 3] >> (index & 7) & 1


cdef inline const unsigned char* bitmap_of(ArrowArray* array) noexcept nogil:
    """The validity bitmap; NULL where nothing is null."""
    if array.null_count == 0:
        return NULL
    return <const unsigned char*>array.buffers[0]


cdef object field_of(ArrowSchema* schema, int depth):
    cdef int64_t i
    if schema == NULL or schema.release == NULL or schema.format == NULL:
        raise arrow_failures.broken("the schema of data", "schema", "a field or its format is missing")
    if schema.n_children < 0 or (schema.n_children and schema.children == NULL):
        raise arrow_failures.broken("the schema of data", "schema", f"{schema.n_children} children that are not there")
    children = ()
    dictionary = None
    if depth > 1:
        children = tuple([field_of(schema.children[i], depth - 1) for i in range(schema.n_children)])
        dictionary = None if schema.dictionary == NULL else field_of(schema.dictionary, depth - 1)
    return arrow_types.Field(
        "" if schema.name == NULL else schema.name[:strlen(schema.name)].decode("utf-8", "replace"),
        schema.format[:strlen(schema.format)].decode("utf-8", "replace"), children, dictionary)
