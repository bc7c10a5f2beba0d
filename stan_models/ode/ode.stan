// Pharmacokinetics: a drug is absorbed from the gut and eliminated from the blood, both at rates
// proportional to the amounts there, which an ODE solver integrates.
functions {
  vector rates(real t, vector amounts, real absorption, real elimination) {
    real absorbed = absorption * amounts[1];
    return [-absorbed, absorbed - elimination * amounts[2]]';
  }
}
data {
  int<lower=1> N;
  real<lower=0> dose;                      // mg, swallowed at time 0
  array[N] real<lower=0> time;             // hours
  vector<lower=0>[N] y;                    // measured concentrations in the blood, mg per litre
}
parameters {
  real<multiplier=0.5> log_absorption;                   // per hour
  real<offset=log(5), multiplier=0.5> log_clearance;     // litres per hour
  real<offset=log(40), multiplier=0.5> log_volume;       // litres
  real<lower=0> sigma;                     // of the log measurement
}
transformed parameters {
  real absorption = exp(log_absorption);
  real clearance = exp(log_clearance);
  real volume = exp(log_volume);
  vector[N] concentration;
  {
    array[N] vector[2] amounts = ode_rk45_tol(rates, [dose, 0]', 0, time, 1e-8, 1e-8, 100000,
                                              absorption, clearance / volume);
    for (n in 1:N) {
      concentration[n] = amounts[n, 2] / volume;
    }
  }
}
model {
  log_absorption ~ normal(0, 0.5);
  log_clearance ~ normal(log(5), 0.5);
  log_volume ~ normal(log(40), 0.5);
  sigma ~ exponential(5);
  y ~ lognormal(log(concentration), sigma);
}
