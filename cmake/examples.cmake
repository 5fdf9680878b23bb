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
