# The command line `taskpool`: an object library, so that the tests reach its parts, and a thin main.

find_package(CLI11 QUIET)
find_package(fmt QUIET)
find_package(simdjson QUIET)
include(cmake/find_re2.cmake)
set(taskpool_cli_libraries CLI11::CLI11 fmt::fmt re2::re2 simdjson::simdjson)
foreach(library IN LISTS taskpool_cli_libraries)
  if(TARGET ${library})
    continue()
  elseif(TASKPOOL_BUILD_CLI STREQUAL "AUTO")
    message(STATUS "taskpool: the command line is left out, for ${library} was not found")
    return()
  else()
    message(FATAL_ERROR "taskpool: the command line needs ${library}, which was not found")
  endif()
endforeach()

# What reads text that others wrote, by itself: the fuzz targets need no more (tests/fuzz).
set(taskpool_cli_input command key options record)
list(TRANSFORM taskpool_cli_input REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/cli/\\1.cpp")
add_library(taskpool_cli_input OBJECT ${taskpool_cli_input})
target_include_directories(taskpool_cli_input PUBLIC cli include)
target_compile_features(taskpool_cli_input PUBLIC cxx_std_20)
target_link_libraries(taskpool_cli_input PRIVATE ${taskpool_cli_libraries} taskpool_warnings)

file(GLOB taskpool_cli_sources CONFIGURE_DEPENDS cli/*.cpp)
list(REMOVE_ITEM taskpool_cli_sources ${taskpool_cli_input} ${PROJECT_SOURCE_DIR}/cli/main.cpp)

add_library(taskpool_cli OBJECT ${taskpool_cli_sources})
target_include_directories(taskpool_cli PUBLIC cli)
target_sources(taskpool_cli INTERFACE $<TARGET_OBJECTS:taskpool_cli_input>)
target_link_libraries(
  taskpool_cli
  PUBLIC taskpool::taskpool
  PRIVATE ${taskpool_cli_libraries} taskpool_warnings)

add_executable(taskpool_exe cli/main.cpp)
target_link_libraries(taskpool_exe PRIVATE taskpool_cli ${taskpool_cli_libraries} taskpool_warnings)
set_target_properties(
  taskpool_exe
  PROPERTIES OUTPUT_NAME taskpool
             # Apart from the library: for Ninja, `taskpool` in the build folder is that target's name.
             RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
set_target_properties(taskpool_cli_input taskpool_cli taskpool_exe PROPERTIES CXX_EXTENSIONS OFF)
