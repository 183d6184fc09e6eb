# The one way a folder becomes a library, and a test file becomes a ctest entry.

include(GNUInstallDirs)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O3 -g1 -DNDEBUG")

# -fno-math-errno lets the square root of an update be a vector instruction.
add_library(strata_options INTERFACE)
target_compile_options(strata_options INTERFACE -Wall -Wextra -Wconversion -Wshadow
                       -fno-math-errno -fvisibility-inlines-hidden)
# Loops marked STRATA_MULTIVERSION are compiled for AVX-512, AVX2 and plain x86-64; the loader picks.
# Its resolvers run before a sanitizer is ready, so those builds take the plain one.
if(STRATA_SANITIZE)
  target_compile_definitions(strata_options INTERFACE STRATA_MULTIVERSION=)
else()
  target_compile_definitions(strata_options INTERFACE
    "STRATA_MULTIVERSION=__attribute__((target_clones(\"arch=x86-64-v4\",\"arch=x86-64-v3\",\"default\")))")
endif()
if(STRATA_WERROR)
  target_compile_options(strata_options INTERFACE -Werror)
endif()
if(STRATA_SANITIZE)
  add_compile_options(-fsanitize=${STRATA_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${STRATA_SANITIZE})
endif()

# strata_module(swap DEPENDS core PRIVATE PkgConfig::liburing HEADERS ... SOURCES ...)
# DEPENDS names folders to the left; the link graph repeats the order of the folders.
function(strata_module name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "SOURCES;HEADERS;DEPENDS;PRIVATE")
  add_library(strata_${name} STATIC ${ARG_SOURCES})
  add_library(strata::${name} ALIAS strata_${name})
  target_compile_features(strata_${name} PUBLIC cxx_std_20)
  target_sources(strata_${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}
                 FILES ${ARG_HEADERS})
  set_target_properties(strata_${name} PROPERTIES EXPORT_NAME ${name}
                        VERIFY_INTERFACE_HEADER_SETS ON)
  list(TRANSFORM ARG_DEPENDS PREPEND strata::)
  target_link_libraries(strata_${name} PUBLIC ${ARG_DEPENDS}
                        PRIVATE $<BUILD_INTERFACE:strata_options> ${ARG_PRIVATE})
  install(TARGETS strata_${name} EXPORT strata ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
          FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/strata)
endfunction()
