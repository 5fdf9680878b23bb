# Each examples/NAME.cpp is a program and, where tests are built, the test example.NAME.
file(GLOB taskpool_examples CONFIGURE_DEPENDS examples/*.cpp)
# What begins with the name of a component needs that (cmake/components.cmake).
foreach(source IN LISTS taskpool_examples)
  cmake_path(GET source STEM name)
  set(needs taskpool::taskpool)
  if(name MATCHES "^asio_")
    set(needs taskpool_asio_with_coroutines)
    if(NOT TARGET taskpool::asio)
      continue()
    endif()
  endif()
  add_executable(example_${name} ${source})
  target_link_libraries(example_${name} PRIVATE ${needs} taskpool_warnings)
  set_target_properties(
    example_${name} PROPERTIES OUTPUT_NAME ${name} CXX_EXTENSIONS OFF
                               RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
  if(TASKPOOL_BUILD_TESTS)
    add_test(NAME example.${name} COMMAND example_${name})
    set_tests_properties(example.${name} PROPERTIES TIMEOUT 120)
  endif()
endforeach()

# A program of several files, with a test of its own (tests/examples). It uses what only Linux has.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  add_executable(example_notifications examples/notifications/main.cpp)
  target_link_libraries(example_notifications PRIVATE taskpool::taskpool taskpool_warnings)
  set_target_properties(example_notifications PROPERTIES OUTPUT_NAME notify CXX_EXTENSIONS OFF
                                                         RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
endif()
