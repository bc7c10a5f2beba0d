/*
 * What every program is compiled with, precompiled where there is room. stanc's header of a program
 * includes it, too.
 */
#pragma once

#include <stan/model/model_header.hpp>

namespace stan::math {

/*
 * In place of Stan's: nobody reads its times here, and it would stay active, to be refused the next
 * time, where a signal ends an evaluation within it.
 */
template <typename T>
struct unmeasured_profile {
  template <typename... Arguments>
  explicit unmeasured_profile(const Arguments&...) {}
};

}  // namespace stan::math
