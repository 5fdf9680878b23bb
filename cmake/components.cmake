# The components that are headers over another library: taskpool::NAME exists where that library is found. Included by
# the build and, installed beside it, by the package, so that it is looked for on the machine that uses it.
#   taskpool::asio        taskpool/asio.hpp        standalone Asio
#   taskpool::boost_asio  taskpool/boost_asio.hpp  Boost.Asio
#   taskpool::stdexec     taskpool/stdexec.hpp     stdexec
function(taskpool_component name header definitions)
  string(TOUPPER "TASKPOOL_${name}_INCLUDE_DIR" folder)
  find_path(${folder} ${header})
  mark_as_advanced(${folder})
  if(${folder} AND NOT TARGET taskpool::${name})
    add_library(taskpool::${name} INTERFACE IMPORTED GLOBAL)
    target_link_libraries(taskpool::${name} INTERFACE taskpool::taskpool)
    target_include_directories(taskpool::${name} SYSTEM INTERFACE ${${folder}})
    target_compile_definitions(taskpool::${name} INTERFACE ${definitions})
  endif()
endfunction()

taskpool_component(asio asio/execution_context.hpp ASIO_STANDALONE)
taskpool_component(boost_asio boost/asio/execution_context.hpp "")
taskpool_component(stdexec stdexec/execution.hpp "")
