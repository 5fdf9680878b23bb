# Warnings for this project's own code; linked PRIVATE, so that users of the library never meet them.
#   taskpool_test_warnings  for tests, which count with literals, where warnings of conversions find nothing
#   taskpool_warnings       for all else
add_library(taskpool_test_warnings INTERFACE)
add_library(taskpool_warnings INTERFACE)
target_link_libraries(taskpool_warnings INTERFACE taskpool_test_warnings)
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" AND NOT MSVC)
  target_compile_options(
    taskpool_test_warnings
    INTERFACE -Wall
              -Wextra
              -Wpedantic
              -Wcast-qual
              -Wold-style-cast
              -Wnon-virtual-dtor
              -Woverloaded-virtual
              -Wundef
              -Wextra-semi
              # Options are set by designated initializers that name only what differs from the default.
              -Wno-missing-field-initializers
              # GCC's plain -Wshadow objects to constructor parameters named as the members they set.
              $<IF:$<CXX_COMPILER_ID:GNU>,-Wshadow=local,-Wshadow>
              # GCC 12 sees overlaps in std::string that are not there (its bug 105651).
              $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)
  target_compile_options(taskpool_warnings INTERFACE -Wconversion -Wsign-conversion)
elseif(MSVC)
  target_compile_options(taskpool_test_warnings INTERFACE /W4 /permissive-)
endif()
