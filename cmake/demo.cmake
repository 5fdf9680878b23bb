# What ./dev demo needs besides the command line: each demo/NAME.cpp is a program. They use POSIX.
if(NOT UNIX)
  return()
endif()
file(GLOB taskpool_demos CONFIGURE_DEPENDS demo/*.cpp)
foreach(source IN LISTS taskpool_demos)
  cmake_path(GET source STEM name)
  add_executable(demo_${name} ${source})
  target_link_libraries(demo_${name} PRIVATE taskpool_warnings)
  target_compile_features(demo_${name} PRIVATE cxx_std_20)
  set_target_properties(demo_${name} PROPERTIES OUTPUT_NAME ${name} CXX_EXTENSIONS OFF
                                                RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/demo)
endforeach()
# It starts thousands of times: leave out the C++ library, of which it uses nothing.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND TARGET demo_send)
  target_link_options(demo_send PRIVATE -Wl,--as-needed)
endif()
